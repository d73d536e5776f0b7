"""Gradient estimates: how an attack estimates the gradient at an image from evaluations of the surrogate's gradient.

This module defines their interface; the estimates of the literature are in `variance.py`, `penalty.py`, `look_ahead.py`,
`enhanced.py` and `reverse.py`.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import optax

GradFn = Callable[[jax.Array, jax.Array], jax.Array]
State = Any  # the state of an estimate, a pytree of arrays
Tree = TypeVar('Tree')


class MeanOver(Protocol):
    """The type of `Step.mean_over`."""

    def __call__(self, count: int, compute: Callable[[jax.Array], Tree], /) -> Tree:
        """Returns the mean of `compute(i)`, a pytree of arrays, over i = 0, ..., count - 1."""


class Step(NamedTuple):
    """What an estimate may use from the step in which it is computed.

    Attributes:
      number: Number of the step, int32, starting at 0.
      originals: The original images `[B, H, W, C]`.
      direction_state: State of the direction before this step, such as an `AccumulateState` with its momentum.
      mean_over: `mean_over(count, compute)` is the mean of `compute(i)`, computed in chunks of the attack's `chunk_size`.
    """

    number: jax.Array
    originals: jax.Array
    direction_state: optax.OptState
    mean_over: MeanOver


class GradientEstimate(NamedTuple):
    """Pure functions that estimate a gradient, in the style of optax.

    Attributes:
      init: Function from the images `[B, H, W, C]` to the initial state, a pytree of arrays.
      update: Function `(grad_fn, images, state, keys, step) -> (gradient, state)`, where `grad_fn(images, keys)` is the
        gradient `[B, H, W, C]` of the loss at any images, the keys `[B]` are new at every step, and `step` is a `Step`.
      evaluations: Function from the number of steps of an attack to the number of calls of `grad_fn` in all these steps.
    """

    init: Callable[[jax.Array], State]
    update: Callable[[GradFn, jax.Array, State, jax.Array, Step], tuple[jax.Array, State]]
    evaluations: Callable[[int], int]


# The gradient at the image itself, which takes one evaluation per step.
AT_IMAGE = GradientEstimate(
    init=lambda images: (),
    update=lambda grad_fn, images, state, keys, step: (grad_fn(images, keys), state),
    evaluations=lambda steps: steps,
)

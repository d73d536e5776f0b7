"""Gradient estimates: how an attack gets the gradient at an image from evaluations of the surrogate's gradient.

The estimates of the literature are in `variance.py`, `penalty.py`, `look_ahead.py`, `enhanced.py` and `reverse.py`; here is
what they are made of.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import optax

GradFn = Callable[[jax.Array, jax.Array], jax.Array]
State = Any  # of an estimate: a pytree of arrays
Tree = TypeVar('Tree')


class MeanOver(Protocol):
    """What `Step.mean_over` is."""

    def __call__(self, count: int, compute: Callable[[jax.Array], Tree], /) -> Tree:
        """The mean of `compute(i)`, a pytree of arrays, over i = 0, ..., count - 1."""


class Step(NamedTuple):
    """What an estimate may know of the step that it is made for.

    Attributes:
      number: Number of the step, int32, from 0.
      originals: The original images `[B, H, W, C]`.
      direction_state: State of the direction before this step, such as `AccumulateState` with its momentum.
      mean_over: `mean_over(count, compute)`, the mean of `compute(i)` in chunks of the attack's size.
    """

    number: jax.Array
    originals: jax.Array
    direction_state: optax.OptState
    mean_over: MeanOver


class GradientEstimate(NamedTuple):
    """A pair of pure functions, in the manner of optax.

    Attributes:
      init: Function of the images `[B, H, W, C]` to the first state, a pytree of arrays.
      update: Function `(grad_fn, images, state, keys, step) -> (gradient, state)`; `grad_fn(images, keys)` is the gradient
        `[B, H, W, C]` of the loss at any images, `keys` `[B]` are new at every step, and `step` is a `Step`.
      evaluations: Function of the number of steps of an attack to the number of calls of `grad_fn` in all of them.
    """

    init: Callable[[jax.Array], State]
    update: Callable[[GradFn, jax.Array, State, jax.Array, Step], tuple[jax.Array, State]]
    evaluations: Callable[[int], int]


# The gradient at the image itself: one evaluation a step.
AT_IMAGE = GradientEstimate(
    init=lambda images: (),
    update=lambda grad_fn, images, state, keys, step: (grad_fn(images, keys), state),
    evaluations=lambda steps: steps,
)

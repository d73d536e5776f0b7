"""Gradient estimates: how an attack gets the gradient at an image from evaluations of the surrogate's gradient.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

GradFn = Callable[[jax.Array, jax.Array], jax.Array]


class GradientEstimate(NamedTuple):
    """A pair of pure functions, in the manner of optax.

    Attributes:
      init: Function of the images `[B, H, W, C]` to the first state, a pytree of arrays.
      update: Function `(grad_fn, images, state, keys) -> (gradient, state)`; `grad_fn(images, keys)` is the gradient
        `[B, H, W, C]` of the loss at any images, and `keys` `[B]` are new at every step.
      evaluations: How often `update` calls `grad_fn`.
    """

    init: Callable[[jax.Array], Any]
    update: Callable[[GradFn, jax.Array, Any, jax.Array], tuple[jax.Array, Any]]
    evaluations: int


# The gradient at the image itself: one evaluation a step.
AT_IMAGE = GradientEstimate(
    init=lambda images: (),
    update=lambda grad_fn, images, state, keys: (grad_fn(images, keys), state),
    evaluations=1,
)

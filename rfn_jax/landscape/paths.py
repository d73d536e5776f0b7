"""The loss along a line between weights, and on a plane through them.

Axes: `n` points along a line or along one side of a plane.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax.core import numerics
from rfn_jax.landscape import mean_loss as mean_loss_lib
from rfn_jax.optim import random_trees


def line(
    loss: mean_loss_lib.MeanLoss,
    start: mean_loss_lib.Params,
    end: mean_loss_lib.Params,
    positions: Sequence[float] | np.ndarray,
    *,
    constants: tuple[Any, Any] | None = None,
) -> np.ndarray:
    r"""Returns the loss along the line through two points, :math:`L((1 - t)\, w_0 + t\, w_1)`.

    Args:
      loss: The loss.
      start: :math:`w_0`.
      end: :math:`w_1`.
      positions: The values of t, `[n]`; 0 is the start and 1 the end, and others are allowed.
      constants: The constants of the loss at the start and at the end, such as running statistics, which are then
        interpolated as well; by default those of `loss` everywhere.

    Returns:
      float32 `[n]`.
    """
    ends = (loss.constants, loss.constants) if constants is None else constants
    return np.asarray(_line(loss, (start, ends[0]), (end, ends[1]), jnp.asarray(positions, jnp.float32)))


def plane(
    loss: mean_loss_lib.MeanLoss,
    params: mean_loss_lib.Params,
    directions: tuple[mean_loss_lib.Params, mean_loss_lib.Params],
    positions: Sequence[float] | np.ndarray,
) -> np.ndarray:
    r"""Returns the loss on a plane, :math:`L(w + a\, d_0 + b\, d_1)`.

    Args:
      loss: The loss.
      params: w.
      directions: :math:`d_0` and :math:`d_1`, such as two that `filter_normalized` gives.
      positions: The values of a, and also of b, `[n]`.

    Returns:
      float32 `[n, n]`; a goes along the first axis.
    """
    return np.asarray(_plane(loss, params, directions, jnp.asarray(positions, jnp.float32)))


def filter_normalized(params: mean_loss_lib.Params, key: jax.Array) -> mean_loss_lib.Params:
    """Returns a random direction in which each filter has the norm of the same filter of the weights.

    A filter is what belongs to one output: all axes of an array but the last (for kernels of attention, which have an axis of
    heads before the last one, a filter spans all heads). Vectors, such as biases and the parameters of
    normalizations, are not changed, as in the authors' code, so a plane shows the filters only.

    References:
      Li et al., `Visualizing the Loss Landscape of Neural Nets <https://arxiv.org/abs/1712.09913>`_, 2018.
    """

    def draw(key: jax.Array, w: jax.Array) -> jax.Array:
        if w.size == w.shape[-1] if w.ndim else True:
            return jnp.zeros_like(w)
        direction = jax.random.normal(key, w.shape, w.dtype)
        axes = tuple(range(w.ndim - 1))
        norm_w, norm_d = (jnp.sqrt(jnp.sum(jnp.square(x), axes, keepdims=True)) for x in (w, direction))
        return direction * numerics.safe_divide(norm_w, norm_d)

    return random_trees.draw(params, key, draw)


@jax.jit
def _line(loss: mean_loss_lib.MeanLoss, start: Any, end: Any, positions: jax.Array) -> jax.Array:
    def at(t: jax.Array) -> jax.Array:
        params, constants = jax.tree.map(lambda a, b: (1 - t) * a + t * b, start, end)
        return loss.replace(constants=constants)(params)

    return jax.lax.map(at, positions)


@jax.jit
def _plane(loss: mean_loss_lib.MeanLoss, params: Any, directions: tuple, positions: jax.Array) -> jax.Array:
    def at(a: jax.Array, b: jax.Array) -> jax.Array:
        return loss(jax.tree.map(lambda w, x, y: w + a * x + b * y, params, *directions))

    return jax.lax.map(lambda a: jax.lax.map(lambda b: at(a, b), positions), positions)

"""Norms and divisions that stay finite and do not lose precision in low-precision types.

Nothing in this project divides by a bare norm: use these functions.

Axes: `B` is the batch; a leading `B` in a shape means that the value is computed separately for each example.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

SMALL = 1 << 15  # arrays with fewer values than this are reduced together


def safe_divide(numerator: ArrayLike, denominator: ArrayLike) -> jax.Array:
    """Returns `numerator / denominator`, or 0 where the denominator is 0.

    The gradient is finite everywhere: the division never sees the zero.

    Args:
      numerator: Array.
      denominator: Array that broadcasts with `numerator`.

    Returns:
      The quotient, 0 where `denominator` is exactly 0.
    """
    denominator = jnp.asarray(denominator)
    is_zero = denominator == 0
    quotient = numerator / jnp.where(is_zero, jnp.ones_like(denominator), denominator)
    return jnp.where(is_zero, jnp.zeros_like(quotient), quotient)


def _scaled_norm(largest: jax.Array, sum_of_squares: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Computes `largest * sqrt(sum((x / largest)^2))`, which neither overflows nor underflows for x of any size.

    The norm does not depend on the scale, so no gradient flows through the scale; the square root never sees a zero.
    """
    scale = jax.lax.stop_gradient(jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1.0))
    total = sum_of_squares(scale)
    is_zero = total == 0
    return jnp.where(is_zero, 0.0, scale * jnp.sqrt(jnp.where(is_zero, 1.0, total)))


def _join_small(leaves: list[jax.Array]) -> list[jax.Array]:
    """Concatenates the small arrays into one, so that the same values are in fewer arrays.

    An accelerator launches a kernel for each array of a reduction, which takes as long as the reduction itself if the arrays
    are small, as in batch normalization. A CPU has no such cost, and there the order of summation is kept.
    """
    small = [leaf for leaf in leaves if leaf.size < SMALL]
    if jax.default_backend() == 'cpu' or len({leaf.dtype for leaf in small}) != 1:
        return leaves
    return [*(leaf for leaf in leaves if leaf.size >= SMALL), jnp.concatenate([leaf.ravel() for leaf in small])]


def tree_norm(tree: Any) -> jax.Array:
    r"""L2 norm over all leaves together, accumulated in float32.

    .. math:: \|x\|_2 = \sqrt{\sum_{leaves} \sum_i x_i^2}

    Args:
      tree: Any pytree of arrays; an empty tree has norm 0.

    Returns:
      Scalar float32, finite for every finite tree whose norm float32 can represent; NaN if a leaf holds NaN, infinite or
      NaN if a leaf holds infinity. Its gradient is the unit vector, and 0 at 0.
    """
    leaves = _join_small([leaf.astype(jnp.float32) for leaf in jax.tree.leaves(tree) if leaf.size])
    if not leaves:
        return jnp.zeros((), jnp.float32)
    largest = functools.reduce(jnp.maximum, [jnp.max(jnp.abs(leaf)) for leaf in leaves])
    return _scaled_norm(
        largest, lambda scale: functools.reduce(operator.add, [jnp.sum(jnp.square(leaf / scale)) for leaf in leaves])
    )


def wide_dtype(dtype: DTypeLike) -> jnp.dtype:
    """Returns the type in which to compute with values of `dtype`: float64 for float64, otherwise float32."""
    return jnp.dtype('float64') if jnp.dtype(dtype) == jnp.float64 else jnp.dtype('float32')


def wide_zeros_like(x: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    """Returns zeros of the shape of `x`, in float32 (float64 for float64): what a sum over steps starts from."""
    return jnp.zeros_like(x, dtype=wide_dtype(x.dtype))


def wide(x: jax.Array) -> jax.Array:
    """Casts `x` to float32, unless it is float64."""
    return x.astype(wide_dtype(x.dtype))


def tree_vdot(a: Any, b: Any) -> jax.Array:
    r"""Inner product of two trees, accumulated in float32 (in float64 where a leaf is float64).

    .. math:: \langle a, b \rangle = \sum_{leaves} \sum_i a_i b_i

    Args:
      a: Any pytree of arrays.
      b: A pytree of the same structure and shapes.

    Returns:
      Scalar; 0 for empty trees.
    """

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        dtype = wide_dtype(jnp.float64 if jnp.float64 in (x.dtype, y.dtype) else x.dtype)
        return jnp.sum(x.astype(dtype) * y.astype(dtype))

    parts = jax.tree.leaves(jax.tree.map(product, a, b))
    dtype = wide_dtype(jnp.float64 if any(part.dtype == jnp.float64 for part in parts) else jnp.float32)
    return functools.reduce(operator.add, [part.astype(dtype) for part in parts], jnp.zeros((), dtype))


def all_finite(tree: Any) -> jax.Array:
    """Returns whether no leaf holds infinity or NaN, as a scalar bool."""
    leaves = _join_small(jax.tree.leaves(tree))
    return functools.reduce(operator.and_, [jnp.all(jnp.isfinite(x)) for x in leaves], jnp.asarray(True))


def batch_norm_l2(x: jax.Array) -> jax.Array:
    """L2 norm of each example, in float32.

    Args:
      x: Array `[B, ...]`.

    Returns:
      Array `[B, 1, ..., 1]` with as many axes as `x`, against which it broadcasts.
    """
    axes = tuple(range(1, x.ndim))
    x = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(x), axis=axes, keepdims=True)
    return _scaled_norm(largest, lambda scale: jnp.sum(jnp.square(x / scale), axis=axes, keepdims=True))


def batch_mean_abs(x: jax.Array) -> jax.Array:
    """Mean absolute value of each example (its L1 norm divided by its size), in float32.

    Args:
      x: Array `[B, ...]`.

    Returns:
      Array `[B, 1, ..., 1]` that broadcasts against `x`.
    """
    return jnp.mean(jnp.abs(x.astype(jnp.float32)), axis=tuple(range(1, x.ndim)), keepdims=True)

"""Means over many copies of a computation, computed in chunks to bound the memory."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from rfn_jax.core import numerics

Tree = TypeVar('Tree')


def mean_over(count: int, compute: Callable[[jax.Array], Tree], *, chunk_size: int) -> Tree:
    """Returns the mean of `compute(i)` over i = 0, ..., count - 1.

    The copies of a chunk are computed together by `jax.vmap`, the chunks one after another. The chunk size only affects the
    order in which floats are summed.

    Args:
      count: Number of copies, at least 1.
      compute: Function from the number of a copy, int32, to a pytree of floating-point arrays.
      chunk_size: Number of copies in a chunk, at least 1.

    Returns:
      A pytree like those that `compute` returns.
    """
    if count == 1:
        return compute(jnp.int32(0))
    chunks = -(-count // min(chunk_size, count))
    size = -(-count // chunks)
    numbers = jnp.arange(chunks * size, dtype=jnp.int32)
    weights = (numbers < count) / count  # the last chunk is padded with copies of weight 0

    def add_chunk(total: Any, chunk: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        numbers, weights = chunk
        values = jax.vmap(compute)(jnp.minimum(numbers, count - 1))
        return jax.tree.map(
            lambda t, v: t + jnp.tensordot(weights.astype(t.dtype), v.astype(t.dtype), 1), total, values
        ), None

    shapes = jax.eval_shape(compute, numbers[0])
    total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, numerics.wide_dtype(leaf.dtype)), shapes)
    chunked = (numbers.reshape(chunks, size), weights.reshape(chunks, size))
    total = jax.lax.scan(add_chunk, total, chunked)[0]
    mean: Tree = jax.tree.map(lambda mean, leaf: mean.astype(leaf.dtype), total, shapes)
    return mean

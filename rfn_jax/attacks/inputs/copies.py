"""Means over many copies of a computation, in chunks, so that memory is bounded."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from rfn_jax.core import numerics

Tree = TypeVar('Tree')


def mean_over(count: int, compute: Callable[[jax.Array], Tree], *, chunk_size: int) -> Tree:
    """The mean of `compute(i)` over i = 0, ..., count - 1.

    Copies of a chunk are computed together, by `jax.vmap`; chunks one after another. The mean does not depend on the chunk
    size but for the order of a sum of floats.

    Args:
      count: Number of copies, at least 1.
      compute: Function of the number of a copy, int32, to a pytree of floating-point arrays.
      chunk_size: Copies in a chunk, at least 1.

    Returns:
      A pytree as `compute` returns it.
    """
    if count == 1:
        return compute(jnp.int32(0))
    chunks = -(-count // min(chunk_size, count))
    size = -(-count // chunks)
    numbers = jnp.arange(chunks * size, dtype=jnp.int32)
    weights = (numbers < count) / count  # the last chunk is filled up with copies that do not count

    def add_chunk(total: Any, chunk: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        numbers, weights = chunk
        parts = jax.vmap(compute)(jnp.minimum(numbers, count - 1))
        return jax.tree.map(
            lambda t, p: t + jnp.tensordot(weights.astype(t.dtype), p.astype(t.dtype), 1), total, parts
        ), None

    shapes = jax.eval_shape(compute, numbers[0])
    total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, numerics.wide_dtype(leaf.dtype)), shapes)
    chunked = (numbers.reshape(chunks, size), weights.reshape(chunks, size))
    total = jax.lax.scan(add_chunk, total, chunked)[0]
    mean: Tree = jax.tree.map(lambda mean, leaf: mean.astype(leaf.dtype), total, shapes)
    return mean

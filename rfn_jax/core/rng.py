"""Random keys: one for each purpose, so that adding a draw somewhere never changes another."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def key_for(seed: int, purpose: str, *indices: int) -> jax.Array:
    """Returns the typed key for one purpose.

    Args:
      seed: The seed of the run.
      purpose: What the draws are for, such as `'initialize'`; folded into the key.
      *indices: Integers, such as the epoch, folded in one after another.

    Returns:
      A scalar key (`jax.random.key`), the same on every machine.
    """
    key = subkey(jax.random.key(seed), purpose)
    for index in indices:
        key = jax.random.fold_in(key, index)
    return key


def subkey(key: jax.Array, purpose: str) -> jax.Array:
    """Returns the key for one of the purposes that a scalar key serves."""
    return jax.random.fold_in(key, _hash_to_int(purpose))


def seed_for(seed: int, purpose: str) -> int:
    """Returns a seed in `[0, 2**31)`, different for each purpose, such as the training of one of several networks."""
    return _hash_to_int(f'{seed}/{purpose}') >> 1


def _hash_to_int(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], 'big')


def generator_for(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """Returns the NumPy generator for one purpose, for draws on the host.

    Args:
      seed: The seed of the run, at least 0.
      purpose: What the draws are for, such as `'rand augment'`.
      *indices: Integers of at least 0, such as the epoch and the id of the example. Only the last one may be 2^32 or more.

    Returns:
      A generator whose draws depend on the arguments alone.
    """
    return np.random.default_rng([_hash_to_int(purpose), seed, *(int(index) for index in indices)])


def example_keys(key: jax.Array, ids: ArrayLike) -> jax.Array:
    """Returns one key per example, derived from its id, so that it does not depend on the batch that the example is in.

    Args:
      key: A scalar key.
      ids: Integers `[B]`, the ids of the examples in their data set; only the lowest 32 bits count.

    Returns:
      Keys `[B]`.
    """
    if isinstance(ids, np.ndarray):
        ids = ids.astype(np.uint32)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(ids, jnp.uint32))

"""Random pytrees with the structure of the parameters, sampled with a separate key for each array."""

from collections.abc import Callable

import jax
import optax


def draw(params: optax.Params, key: jax.Array, sample: Callable[[jax.Array, jax.Array], jax.Array]) -> optax.Params:
    """Returns `sample(key, leaf)` for each leaf of `params`.

    Args:
      params: A pytree of arrays.
      key: The key into which the number of each leaf is folded.
      sample: Function from a key and a leaf to an array.
    """
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, [sample(jax.random.fold_in(key, i), leaf) for i, leaf in enumerate(leaves)])


def key_of(seed: int, *numbers: jax.Array | int) -> jax.Array:
    """Returns the key of a seed into which integers are folded, such as the number of updates."""
    key = jax.random.key(seed)
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key

"""Random trees with the structure of the parameters, one key for each array."""

from collections.abc import Callable, Sequence
from typing import Any

import jax


def draw(params: Any, numbers: Sequence[jax.Array | int], sample: Callable[[jax.Array, jax.Array], jax.Array]) -> Any:
    """`sample(key, leaf)` for each leaf of `params`.

    Args:
      params: A pytree of arrays.
      numbers: Integers, at least one: the seed, and what the draw depends on, such as a count.
      sample: Makes an array from a key and a leaf.
    """
    key = jax.random.key(numbers[0])
    for number in numbers[1:]:
        key = jax.random.fold_in(key, number)
    leaves, structure = jax.tree.flatten(params)
    return structure.unflatten([sample(jax.random.fold_in(key, i), leaf) for i, leaf in enumerate(leaves)])

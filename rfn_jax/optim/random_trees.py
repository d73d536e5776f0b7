"""Random pytrees with the structure of the parameters, sampled with a separate key for each array."""

from collections.abc import Callable, Sequence

import jax
import optax


def draw(
    params: optax.Params, numbers: Sequence[jax.Array | int], sample: Callable[[jax.Array, jax.Array], jax.Array]
) -> optax.Params:
    """Returns `sample(key, leaf)` for each leaf of `params`.

    Args:
      params: A pytree of arrays.
      numbers: The seed, followed by any integers to fold into the key, such as the number of updates.
      sample: Function from a key and a leaf to an array.
    """
    key = jax.random.key(numbers[0])
    for number in numbers[1:]:
        key = jax.random.fold_in(key, number)
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, [sample(jax.random.fold_in(key, i), leaf) for i, leaf in enumerate(leaves)])

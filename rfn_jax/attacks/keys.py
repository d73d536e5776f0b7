"""Which draws of an attack come from which key, and draws with one key per example.

Each example has a key of its own. Key 0 folded into it is for the start, key t + 1 for step t, and those after the last
step for restarts. Of the key of a step, transform i of the images has key i and the surrogate the one after the last
transform. Where there are several copies, copy n has all of these from key `COPIES + n` of the step, and the draws that
copies share are from key `SHARED + i`.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import jax

# Where the numbers begin that are folded into keys for the draws that copies share, and for those of each copy.
SHARED, COPIES = 1 << 20, 1 << 21


def fold(keys: jax.Array, number: jax.typing.ArrayLike) -> jax.Array:
    """Keys `[B]` of their own for another purpose, by `jax.random.fold_in`."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def uniform(keys: jax.Array, images: jax.Array, radius: float) -> jax.Array:
    """Changes `[B, H, W, C]` of the shape and type of the images, drawn from U[-radius, radius] with keys `[B]`."""
    return jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], images.dtype, -radius, radius))(keys)

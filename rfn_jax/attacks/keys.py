"""Which key each draw of an attack uses, and draws with one key per example.

Each example has its own key. Other keys are derived from it by folding in numbers: 0 for the start, t + 1 for step t, and
the numbers after the last step for restarts. Into the key of a step, i is folded for transform i of the images, and the
number after the last transform for the surrogate. If there are several copies, copy n derives these keys from the key
`COPIES + n` of the step instead, and draws that the copies share use the key `SHARED + i` of the step.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import jax

# The first numbers that are folded into the key of a step for the draws that copies share, and for those of each copy.
SHARED, COPIES = 1 << 20, 1 << 21


def fold(keys: jax.Array, number: jax.typing.ArrayLike) -> jax.Array:
    """Folds a number into keys `[B]`, which gives separate keys `[B]` for another purpose."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def uniform(keys: jax.Array, images: jax.Array, radius: float) -> jax.Array:
    """Draws changes `[B, H, W, C]` of the shape and dtype of the images from U[-radius, radius] with keys `[B]`."""
    return jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], images.dtype, -radius, radius))(keys)

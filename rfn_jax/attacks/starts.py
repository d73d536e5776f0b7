"""Where an attack starts: at a point inside the budget around the original, drawn with one key per example.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import jax

from rfn_jax.attacks import budget
from rfn_jax.attacks import keys as keys_lib
from rfn_jax.core import numerics


def at_original(images: jax.Array, keys: jax.Array, limits: budget.Budget) -> jax.Array:
    """Returns the original images `[B, H, W, C]`."""
    del keys, limits
    return images


def uniform_in_ball(images: jax.Array, keys: jax.Array, limits: budget.Budget) -> jax.Array:
    """Draws a point uniformly from the ball of radius `eps` around each image, then clips it to [0, 1].

    Args:
      images: Originals `[B, H, W, C]`.
      keys: Keys `[B]`.
      limits: The budget; its norm is the norm of the ball.

    Returns:
      Images `[B, H, W, C]` inside the budget.
    """
    if limits.norm == 'linf':
        change = keys_lib.uniform(keys, images, 1.0)
    else:
        size = images[0].size
        pairs = jax.vmap(jax.random.split)(keys)
        normal = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(pairs[:, 0])
        radius = jax.vmap(lambda key: jax.random.uniform(key, (1, 1, 1)))(pairs[:, 1]) ** (1 / size)
        change = radius * numerics.safe_divide(normal, numerics.batch_norm_l2(normal))
    return limits.project(images + limits.eps * change, images)

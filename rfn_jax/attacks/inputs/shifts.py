"""Translation invariance by shifting the images by a few pixels.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import jax
import jax.numpy as jnp

from rfn_jax.attacks.inputs import transforms
from rfn_jax.core import checks, errors


def random_shift(max_shift: int = 2, *, copies: int = 1) -> transforms.InputTransform:
    r"""Translation invariance by shifted copies: each image is shifted by a random number of pixels along both axes.

    .. math:: T(x)_{ij} = x_{i - a, j - b}, \qquad a, b \sim U\{-s, ..., s\}

    Pixels from outside the image are 0. `translation_kernel` is the paper's approximation, which needs only one gradient.

    Args:
      max_shift: :math:`s`, the largest shift in pixels, at least 1. 2 as in TransferAttackEval.
      copies: Number of copies, each with its own shifts, at least 1. TransferAttackEval uses 5.

    Returns:
      An input transform with `copies` copies. It raises InputError for images that are small enough to be shifted out of
      view.

    Raises:
      InputError: `max_shift` or `copies` is not an integer that is at least 1.

    References:
      Dong et al., `Evading Defenses to Transferable Adversarial Examples by Translation-Invariant Attacks
      <https://arxiv.org/abs/1904.02884>`_, 2019; Zhao et al., `Revisiting Transferable Adversarial Images
      <https://arxiv.org/abs/2310.11850>`_, 2023 (TransferAttackEval).
    """
    max_shift = checks.integer('max_shift', max_shift, at_least=1)
    copies = checks.integer('copies', copies, at_least=1)

    def apply(inputs: transforms.Input) -> jax.Array:
        height, width = inputs.images.shape[1:3]
        if max_shift >= min(height, width):
            raise errors.InputError(
                f'max_shift {max_shift} must be below the size of the images, {height} x {width} pixels'
            )
        offsets = jax.vmap(lambda key: jax.random.randint(key, (2,), -max_shift, max_shift + 1))(inputs.keys)
        return jax.vmap(lambda image, offset: shift(image, offset, max_shift))(inputs.images, offsets)

    return transforms.InputTransform('random_shift', apply, copies)


def shift(image: jax.Array, offset: jax.Array, max_shift: int) -> jax.Array:
    """Shifts an image `[H, W, C]` down and right by `offset`, int32 `[2]` in [-max_shift, max_shift]; new pixels are 0."""
    padded = jnp.pad(image, ((max_shift, max_shift), (max_shift, max_shift), (0, 0)))
    return jax.lax.dynamic_slice(padded, (max_shift - offset[0], max_shift - offset[1], 0), image.shape)

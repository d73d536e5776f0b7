"""Random crops and flips on the device, with one key per example.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rfn_jax.core import checks


@dataclasses.dataclass(frozen=True)
class CropAndFlip:
    """Pads with zeros, crops back to the original size at a random position, and flips left-right with probability 1/2.

    Attributes:
      crop_padding: Pixels of padding on each side, at least 0; 4 is usual for CIFAR-10. With 0, images are not cropped.
      flip: Whether to flip.

    Raises:
      InputError: `crop_padding` is negative.
    """

    crop_padding: int = 0
    flip: bool = False

    def __post_init__(self):
        checks.integer('crop_padding', self.crop_padding, at_least=0)

    def __call__(self, images: jax.Array, keys: jax.Array) -> jax.Array:
        """Augments images `[B, H, W, C]`, each with its own key of `keys` `[B]`."""
        if not (self.crop_padding or self.flip):
            return images
        return jax.vmap(self._one)(images, keys)

    def _one(self, image: jax.Array, key: jax.Array) -> jax.Array:
        crop_key, flip_key = jax.random.split(key)
        if self.crop_padding:
            pad = self.crop_padding
            row, column = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
            padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
            image = jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)
        if self.flip:
            image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
        return image

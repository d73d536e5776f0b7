"""The budget of an attack: how far an adversarial image may be from its original, and in which norm.

Axes: `B` examples, `H W` rows and columns, `C` channels; images are floats in [0, 1].
"""

import dataclasses
import math
import numbers

import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax.core import errors, numerics

NORMS = ('linf', 'l2')


@dataclasses.dataclass(frozen=True)
class Budget:
    """The set of allowed images: within `eps` of the original in a norm, and within [0, 1].

    Attributes:
      eps: Radius, above 0, for images in [0, 1]: 4/255 is four grey levels for `'linf'`.
      norm: `'linf'` (the largest change of a value) or `'l2'` (Euclidean norm of the change of an image).

    Raises:
      InputError: `eps` is not a finite number above 0, or `norm` is unknown.
    """

    eps: float
    norm: str = 'linf'

    def __post_init__(self):
        if self.norm not in NORMS:
            raise errors.unknown_name('norm', self.norm, NORMS)
        if isinstance(self.eps, bool) or not isinstance(self.eps, numbers.Real):
            raise errors.InputError(f'eps must be a number, got {self.eps!r}')
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise errors.InputError(f'eps must be above 0 and finite, got {self.eps!r}')

    def project(self, images: jax.Array, originals: jax.Array) -> jax.Array:
        """The images `[B, H, W, C]` moved into the budget around `originals`, then clipped to [0, 1].

        Clipping moves each value towards the original, which is in [0, 1], so the result is in both sets.
        """
        change = images - originals
        if self.norm == 'linf':
            change = jnp.clip(change, -self.eps, self.eps)
        else:
            length = numerics.batch_norm_l2(change)
            change = change * (self.eps / jnp.maximum(length, self.eps))
        return jnp.clip(originals + change, 0.0, 1.0).astype(originals.dtype)

    def quantise(self, images: np.ndarray, originals: np.ndarray) -> np.ndarray:
        """The images as uint8 that are still inside the budget around uint8 originals.

        For `'linf'` each value is rounded to the nearest of the 256 levels within `eps` of the original; for `'l2'` each
        change is rounded towards zero, which can only shorten it.

        Args:
          images: Float `[B, H, W, C]` in [0, 1], inside the budget.
          originals: uint8 `[B, H, W, C]`.

        Returns:
          uint8 `[B, H, W, C]`.
        """
        levels = np.asarray(images, np.float64) * 255
        base = originals.astype(np.float64)
        if self.norm == 'linf':
            most = math.floor(self.eps * 255 + 1e-6)
            levels = np.clip(np.rint(levels), base - most, base + most)
        else:
            # The small term, above the rounding of float32 images, keeps a change of whole levels from losing one.
            change = levels - base
            levels = base + np.trunc(change + np.copysign(2e-5, change))
        return np.clip(levels, 0, 255).astype(np.uint8)

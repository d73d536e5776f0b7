"""The budget of an attack: how far an adversarial image may be from its original, and in which norm.

Axes: `B` examples, `H W` rows and columns, `C` channels; images are floats in [0, 1].
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax.core import checks, errors, numerics

NORMS = ('linf', 'l2')


@dataclasses.dataclass(frozen=True)
class Budget:
    """The set of allowed images: within `eps` of the original in a norm, and within [0, 1].

    Attributes:
      eps: Radius, above 0 (and at most 1 for `'linf'`), for images in [0, 1]: 4/255 is four gray levels for `'linf'`.
      norm: `'linf'` (the largest change of a value) or `'l2'` (Euclidean norm of the change of an image).

    Raises:
      InputError: `eps` is not a finite number above 0, or `norm` is unknown.
    """

    eps: float
    norm: str = 'linf'

    def __post_init__(self) -> None:
        checks.one_of('norm', self.norm, NORMS)
        checks.number('eps', self.eps, above=0)
        if self.norm == 'linf' and self.eps > 1:
            raise errors.InputError(
                f'eps must be at most 1, since images are in [0, 1], got {self.eps!r}; did you mean {self.eps:g}/255?'
            )

    def project(self, images: jax.Array, originals: jax.Array) -> jax.Array:
        """The images `[B, H, W, C]` moved into the budget around `originals`, then clipped to [0, 1].

        Clipping moves each value toward the original, which is in [0, 1], so the result is in both sets.
        """
        change = images - originals
        if self.norm == 'linf':
            change = jnp.clip(change, -self.eps, self.eps)
        else:
            length = numerics.batch_norm_l2(change)
            change = change * (self.eps / jnp.maximum(length, self.eps))
        return jnp.clip(originals + change, 0.0, 1.0).astype(originals.dtype)

    def check_levels(self) -> None:
        """Checks that images of 256 levels can use the budget.

        Raises:
          InputError: An L-infinity `eps` is below one level, 1/255, so every image would round back to the original.
        """
        if self.norm == 'linf' and self._levels < 1:
            raise errors.InputError(f'eps {self.eps:g} is below 1/255, one level of the uint8 images that are measured')

    @property
    def _levels(self) -> int:
        return math.floor(self.eps * 255 + 1e-6)

    def quantize(self, images: np.ndarray, originals: np.ndarray) -> np.ndarray:
        """The images as uint8 that are still inside the budget around uint8 originals.

        Each value is rounded to the nearest of the 256 levels: for `'linf'` to the nearest within `eps` of the original,
        so an `eps` between two levels counts as the lower one. For `'l2'`, where rounding makes a change too long, the
        values that it lengthened most are rounded toward the original instead, as few as it takes.

        Args:
          images: Float `[B, H, W, C]` in [0, 1], inside the budget.
          originals: uint8 `[B, H, W, C]`.

        Returns:
          uint8 `[B, H, W, C]`.
        """
        base = originals.astype(np.float64)
        change = np.asarray(images, np.float64) * 255 - base
        rounded = np.rint(change)
        if self.norm == 'linf':
            rounded = np.clip(rounded, -self._levels, self._levels)
        else:
            rounded = np.stack([_shorten(r, c, self.eps * 255) for r, c in zip(rounded, change, strict=True)])
        return np.clip(base + rounded, 0, 255).astype(np.uint8)


def _shorten(rounded: np.ndarray, change: np.ndarray, most: float) -> np.ndarray:
    """Moves values of one rounded change toward zero, those that rounding lengthened most first, until it is short enough.

    Args:
      rounded: The change of an image in whole levels.
      change: The same before rounding, at most `most` long but for float32 noise.
      most: Largest Euclidean norm.
    """
    too_much = np.sum(rounded**2) - (most * (1 + 1e-6)) ** 2
    if too_much <= 0:
        return rounded
    lengthened = np.abs(rounded) - np.abs(change)
    order = np.argsort(-lengthened, axis=None, kind='stable')[: np.sum(lengthened > 0)]
    saved = np.cumsum(2 * np.abs(rounded.ravel()[order]) - 1)  # of the squared norm, by one level each
    moved = order[: np.searchsorted(saved, too_much) + 1]
    result = rounded.copy()
    result.ravel()[moved] -= np.sign(result.ravel()[moved])
    return result

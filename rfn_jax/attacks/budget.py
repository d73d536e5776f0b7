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
      eps: Radius for images in [0, 1], above 0 (and at most 1 for `'linf'`). For `'linf'`, 4/255 is four gray levels.
      norm: `'linf'` (the largest change of any value) or `'l2'` (the Euclidean norm of the change of an image).

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
        """Moves images `[B, H, W, C]` into the budget around `originals`, then clips them to [0, 1].

        Clipping moves each value toward the original, which is in [0, 1], so the result satisfies both constraints.
        """
        change = images - originals
        if self.norm == 'linf':
            change = jnp.clip(change, -self.eps, self.eps)
        else:
            length = numerics.batch_norm_l2(change)
            change = change * (self.eps / jnp.maximum(length, self.eps))
        return jnp.clip(originals + change, 0.0, 1.0).astype(originals.dtype)

    def check_levels(self) -> None:
        """Checks that the budget is large enough for images of 256 levels.

        Raises:
          InputError: An L-infinity `eps` is below one level, 1/255, so every image would be rounded back to its original.
        """
        if self.norm == 'linf' and self._levels < 1:
            raise errors.InputError(
                f'eps {self.eps:g} is below 1/255, one level of the uint8 images that are evaluated'
            )

    @property
    def _levels(self) -> int:
        return math.floor(self.eps * 255 + 1e-6)

    def quantize(self, images: np.ndarray, originals: np.ndarray) -> np.ndarray:
        """Rounds images to uint8 such that they stay inside the budget around uint8 originals.

        Each value is rounded to the nearest of the 256 levels. For `'linf'`, it is the nearest level within `eps` of the
        original, so an `eps` between two levels counts as the lower one. For `'l2'`, if rounding makes a change too long,
        the values that rounding lengthened most are rounded toward the original instead, as few of them as necessary.

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


def _shorten(rounded: np.ndarray, change: np.ndarray, max_length: float) -> np.ndarray:
    """Moves values of a rounded change toward zero, starting with those that rounding lengthened most, until it fits.

    Args:
      rounded: The change of one image in whole levels.
      change: The same change before rounding, at most `max_length` long up to float32 rounding.
      max_length: Largest Euclidean norm allowed.
    """
    excess = np.sum(rounded**2) - (max_length * (1 + 1e-6)) ** 2
    if excess <= 0:
        return rounded
    lengthened = np.abs(rounded) - np.abs(change)
    order = np.argsort(-lengthened, axis=None, kind='stable')[: np.sum(lengthened > 0)]
    reductions = np.cumsum(
        2 * np.abs(rounded.ravel()[order]) - 1
    )  # reduction of the squared norm if each value moves by one level
    moved = order[: np.searchsorted(reductions, excess) + 1]
    result = rounded.copy()
    result.ravel()[moved] -= np.sign(result.ravel()[moved])
    return result

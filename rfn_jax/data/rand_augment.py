"""RandAugment with Pillow: random changes of geometry and color, all of one magnitude, as torchvision does it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rfn_jax.core import checks

LARGEST = 30  # the largest magnitude


class Operation(NamedTuple):
    """One of the changes.

    Attributes:
      amount: Function from the magnitude as a fraction of `LARGEST`, and from the width and height, to the amount.
      signed: Whether the amount is negated with probability 1/2.
      apply: Function from a Pillow image and the amount to the changed image.
    """

    amount: Callable[[float, int, int], float]
    signed: bool
    apply: Callable[[Any, float], Any]


def _affine(image: Any, *matrix: float) -> Any:
    """The image whose pixel (x, y) is the pixel (a x + b y + c, d x + e y + f) of the given one; black outside of it."""
    from PIL import Image

    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def _enhance(name: str) -> Callable[[Any, float], Any]:
    """The operation with a class of `PIL.ImageEnhance`, which moves the image away from, or toward, a plainer one."""

    def apply(image: Any, amount: float) -> Any:
        from PIL import ImageEnhance

        return getattr(ImageEnhance, name)(image).enhance(1 + amount)

    return apply


def _map_values(name: str, image: Any, *amount: float) -> Any:
    """A function of `PIL.ImageOps` of the values of the pixels."""
    from PIL import ImageOps

    return getattr(ImageOps, name)(image, *amount)


def _linear(largest: float) -> Callable[[float, int, int], float]:
    return lambda fraction, width, height: largest * fraction


def _none(fraction: float, width: int, height: int) -> float:
    return 0.0


# Torchvision's table (`RandAugment._augmentation_space`); those without an amount ignore the magnitude.
OPERATIONS: dict[str, Operation] = {
    'identity': Operation(_none, False, lambda image, _: image),
    'shear_x': Operation(_linear(0.3), True, lambda image, slope: _affine(image, 1, slope, 0, 0, 1, 0)),
    'shear_y': Operation(_linear(0.3), True, lambda image, slope: _affine(image, 1, 0, 0, slope, 1, 0)),
    'translate_x': Operation(
        lambda fraction, width, height: 150 / 331 * width * fraction,
        True,
        lambda image, pixels: _affine(image, 1, 0, -int(pixels), 0, 1, 0),
    ),
    'translate_y': Operation(
        lambda fraction, width, height: 150 / 331 * height * fraction,
        True,
        lambda image, pixels: _affine(image, 1, 0, 0, 0, 1, -int(pixels)),
    ),
    'rotate': Operation(_linear(30), True, lambda image, degrees: image.rotate(degrees)),
    'brightness': Operation(_linear(0.9), True, _enhance('Brightness')),
    'color': Operation(_linear(0.9), True, _enhance('Color')),
    'contrast': Operation(_linear(0.9), True, _enhance('Contrast')),
    'sharpness': Operation(_linear(0.9), True, _enhance('Sharpness')),
    'posterize': Operation(
        lambda fraction, width, height: 8 - round(4 * fraction),
        False,
        lambda image, bits: _map_values('posterize', image, int(bits)),
    ),
    'solarize': Operation(
        lambda fraction, width, height: 255 * (1 - fraction), False, functools.partial(_map_values, 'solarize')
    ),
    'auto_contrast': Operation(_none, False, lambda image, _: _map_values('autocontrast', image)),
    'equalize': Operation(_none, False, lambda image, _: _map_values('equalize', image)),
}


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Applies random operations one after another; the operations, amounts and pixels are torchvision's.

    Each operation is drawn uniformly from the 14 in `OPERATIONS`, with replacement. Pixels from outside the image are black.

    Attributes:
      num_ops: Number of operations, at least 1; 2 is usual.
      magnitude: Magnitude of all operations, 0 to 30; 9 is usual.

    Raises:
      InputError: A value is out of range.

    References:
      Cubuk et al., `RandAugment <https://arxiv.org/abs/1909.13719>`_, 2019.
    """

    num_ops: int = 2
    magnitude: int = 9

    def __post_init__(self):
        checks.integer('num_ops of rand_augment', self.num_ops, at_least=1)
        checks.integer('magnitude of rand_augment', self.magnitude, at_least=0, at_most=LARGEST)

    def __call__(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Augments an image uint8 `[H, W, C]` with 1 or 3 channels."""
        from PIL import Image

        pillow = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        names = list(OPERATIONS)
        for _ in range(self.num_ops):
            operation = OPERATIONS[names[generator.integers(len(names))]]
            amount = operation.amount(self.magnitude / LARGEST, *pillow.size)
            if operation.signed and generator.integers(2):
                amount = -amount
            pillow = operation.apply(pillow, amount)
        return np.asarray(pillow).reshape(image.shape)

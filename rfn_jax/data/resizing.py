"""The resize and center crop that bring the images of a data set to one size, as torchvision does it."""

import dataclasses

import numpy as np

from rfn_jax.core import checks

INTERPOLATIONS = ('bilinear', 'bicubic')


@dataclasses.dataclass(frozen=True)
class ResizeAndCrop:
    """Resizes the shorter side of an image, with antialiasing, and cuts out the center square.

    The pixels are those of torchvision's `Resize(resize)` and `CenterCrop(size)` on Pillow images. With `resize` = `size`, an
    image that has the right size already is left as it is.

    Attributes:
      size: Height and width of the result, at least 1.
      resize: Length of the shorter side before the crop, at least `size`; for 224, 256 is usual.
      interpolation: `'bilinear'` or `'bicubic'`.

    Raises:
      InputError: A value is out of range.
    """

    size: int
    resize: int
    interpolation: str = 'bilinear'

    def __post_init__(self):
        checks.integer('image_size', self.size, at_least=1)
        checks.integer('resize', self.resize, at_least=self.size)
        checks.one_of('interpolation', self.interpolation, INTERPOLATIONS)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Brings an image uint8 `[H, W, C]` to uint8 `[size, size, C]`."""
        height, width = image.shape[:2]
        shorter = min(height, width)
        if shorter != self.resize:
            image = resized(
                image, int(self.resize * height / shorter), int(self.resize * width / shorter), self.interpolation
            )
        top, left = (round((length - self.size) / 2) for length in image.shape[:2])
        return image[top : top + self.size, left : left + self.size]


def usual_resize(size: int) -> int:
    """The usual length of the shorter side before a center crop to `size`: 8/7 of it, 256 for 224."""
    return -(-size * 8 // 7)


def resized(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """Resizes an image uint8 `[H, W, C]` with antialiasing, to uint8 `[height, width, C]`."""
    from PIL import Image

    pillow = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    pixels = np.asarray(pillow.resize((width, height), Image.Resampling[interpolation.upper()]))
    return pixels.reshape(height, width, image.shape[2])

"""The random resized crop of ImageNet training, as torchvision does it."""

import dataclasses
import math

import numpy as np

from rfn_jax.core import errors

TRIES = 10
Box = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Draws a box of random area and aspect ratio; `resizing.resized` brings what it holds to the size of the data set.

    The area is a uniform share of the image, and the logarithm of the aspect ratio (width / height) is uniform. A box that
    does not fit into the image is drawn again; after ten tries it is the largest one in the center whose aspect ratio is in
    the range, as for torchvision's `RandomResizedCrop`.

    Attributes:
      area: Smallest and largest share of the area, above 0 and at most 1; (0.08, 1) is usual.
      ratio: Smallest and largest aspect ratio, above 0.

    Raises:
      InputError: A range is empty, or has a value that is not allowed.

    References:
      Szegedy et al., `Going Deeper with Convolutions <https://arxiv.org/abs/1409.4842>`_, 2014.
    """

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self):
        if len(self.area) != 2 or not 0 < self.area[0] <= self.area[1] <= 1:
            raise errors.InputError(
                f'random_resized_crop must be (min_area, max_area) with 0 < min_area <= max_area <= 1, got {self.area!r}'
            )
        if len(self.ratio) != 2 or not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise errors.InputError(
                f'ratio must be (smallest, largest) with 0 < smallest <= largest, got {self.ratio!r}'
            )

    def box(self, height: int, width: int, generator: np.random.Generator) -> Box:
        """Draws a box (left, top, right, bottom) in an image, in pixels; right and bottom are not part of it."""
        for _ in range(TRIES):
            area = height * width * generator.uniform(*self.area)
            ratio = math.exp(generator.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < box_width <= width and 0 < box_height <= height:
                top = int(generator.integers(height - box_height + 1))
                left = int(generator.integers(width - box_width + 1))
                return left, top, left + box_width, top + box_height
        return self._center_box(height, width)

    def _center_box(self, height: int, width: int) -> Box:
        box_height, box_width = height, width
        if width / height < self.ratio[0]:
            box_height = round(width / self.ratio[0])
        elif width / height > self.ratio[1]:
            box_width = round(height * self.ratio[1])
        left, top = (width - box_width) // 2, (height - box_height) // 2
        return left, top, left + box_width, top + box_height

"""Labeled images in memory."""

import dataclasses

import numpy as np

from rfn_jax.core import errors
from rfn_jax.data import info as info_lib
from rfn_jax.data import sources


@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """A `Source` of labeled images in memory, checked when it is created.

    Attributes:
      images: uint8 `[N, H, W, C]`.
      labels: int32 `[N]` in `[0, K)`.
      ids: int64 `[N]`, at least 0; see `Record.id`.
      class_names: The names of the K classes.
      source: Where the images come from, such as `'cifar10/test'`; together with an id it identifies an image.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    class_names: tuple[str, ...]
    source: str

    def __post_init__(self):
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise errors.InputError(
                f'images of {self.source} must be uint8 [N, H, W, C], got {self.images.dtype} {self.images.shape}'
            )
        if self.labels.shape != self.ids.shape or self.labels.shape != self.images.shape[:1]:
            raise errors.InputError(
                f'{self.source} has {len(self.images)} images, {len(self.labels)} labels and {len(self.ids)} ids'
            )
        out_of_range = self.labels[(self.labels < 0) | (self.labels >= len(self.class_names))]
        if out_of_range.size:
            raise errors.InputError(
                f'label {out_of_range[0]} of {self.source} is out of range: it has {len(self.class_names)} classes, '
                f'0 to {len(self.class_names) - 1}'
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> sources.Record:
        return sources.Record(self.images[position], self.labels[position], self.ids[position])

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`."""
        return self.images.shape[1:]

    def take(self, positions: np.ndarray) -> 'ImageDataset':
        """Returns the examples at `positions` (indices or a boolean mask), in that order."""
        return dataclasses.replace(
            self, images=self.images[positions], labels=self.labels[positions], ids=self.ids[positions]
        )

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns the mean and standard deviation of each channel, for images scaled to [0, 1]."""
        pixels = self.images.reshape(-1, self.images.shape[-1])
        # Sums of integers are exact and need no copy of the images as floats.
        mean = pixels.sum(axis=0, dtype=np.uint64) / len(pixels)
        mean_square = np.einsum('nc,nc->c', pixels, pixels, dtype=np.uint64, casting='unsafe') / len(pixels)
        return tuple((mean / 255).tolist()), tuple((np.sqrt(mean_square - mean**2) / 255).tolist())

    def info(self) -> info_lib.DataInfo:
        """Returns the metadata of a data set with these training images, after computing their statistics."""
        mean, std = self.mean_and_std()
        return info_lib.DataInfo(self.image_shape, self.class_names, mean, std)

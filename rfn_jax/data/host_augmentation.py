"""Augmentation of one image at a time on the host, in the threads that decode the images."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from rfn_jax.core import rng
from rfn_jax.data import rand_augment as rand_augment_lib
from rfn_jax.data import random_crop, resized, resizing, sources


@dataclasses.dataclass(frozen=True)
class HostAugmentation:
    """A random resized crop of the original image, then RandAugment.

    An image depends on the seed, the epoch and the id of the example alone: not on its batch, nor on the number of threads,
    devices or hosts.

    Attributes:
      crop: The crop; None for the images of the data set as they are.
      rand_augment: What follows it; None for nothing.
    """

    crop: random_crop.RandomResizedCrop | None = None
    rand_augment: rand_augment_lib.RandAugment | None = None

    def source(self, source: sources.Source) -> sources.Source:
        """The source to read: with a crop, that of the images before they were brought to one size."""
        return source.originals if self.crop and isinstance(source, resized.ResizedSource) else source

    def transform(
        self, source: sources.Source, image_shape: tuple[int, int, int], *, seed: int, epoch: int
    ) -> Callable[[sources.Record], np.ndarray]:
        """The function from a record of `self.source(source)` to its augmented image, uint8.

        Args:
          source: The training set; crops are resized with its interpolation, by default `'bilinear'`.
          image_shape: `(H, W, C)` of the crops.
          seed: Seed of the run.
          epoch: Number of the epoch.
        """
        interpolation = source.transform.interpolation if isinstance(source, resized.ResizedSource) else 'bilinear'
        return functools.partial(self._augmented, image_shape[:2], interpolation, seed, epoch)

    def _augmented(
        self, size: tuple[int, int], interpolation: str, seed: int, epoch: int, record: sources.Record
    ) -> np.ndarray:
        image = record.image
        if self.crop:
            draws = rng.generator_for(seed, 'random resized crop', epoch, int(record.id))
            left, top, right, bottom = self.crop.box(*image.shape[:2], draws)
            image = resizing.resized(image[top:bottom, left:right], *size, interpolation)
        if self.rand_augment:
            image = self.rand_augment(image, rng.generator_for(seed, 'rand augment', epoch, int(record.id)))
        return image

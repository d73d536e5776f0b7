"""Encoded images in files: their names, labels, and where their bytes are, known without reading them."""

import dataclasses
import os

import numpy as np

from rfn_jax.core import digests, errors
from rfn_jax.data import folder_source


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of one split, ordered by id.

    Attributes:
      container: The folder that holds them, or the archive.
      names: Their N names, such as `'n01440764/n01440764_18.JPEG'`; in a folder, their paths.
      labels: int32 `[N]`.
      ids: int64 `[N]`; see `folder_source.path_id`.
      sizes: Number of bytes of each, int64 `[N]`.
      offsets: Where each starts in an archive, int64 `[N]`; None for a folder.
    """

    container: str
    names: list[str]
    labels: np.ndarray
    ids: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    def take(self, positions: np.ndarray) -> 'Images':
        """The images at `positions`, in that order."""
        return Images(
            self.container,
            [self.names[position] for position in positions],
            self.labels[positions],
            self.ids[positions],
            self.sizes[positions],
            None if self.offsets is None else self.offsets[positions],
        )

    def read(self, position: int) -> bytes:
        """The bytes of the image at a position.

        Raises:
          InputError: They cannot be read, or their number has changed.
        """
        path, size = self.container, int(self.sizes[position])
        try:
            if self.offsets is None:
                with open(os.path.join(path, self.names[position]), 'rb') as file:
                    encoded = file.read()
            else:
                with open(path, 'rb') as file:
                    file.seek(int(self.offsets[position]))
                    encoded = file.read(size)
        except OSError as error:
            raise errors.InputError(f'could not read {self.names[position]!r} of {path}: {error.strerror}') from error
        if len(encoded) != size:
            raise errors.InputError(
                f'{self.names[position]!r} of {path} has changed: it has {len(encoded)} bytes, not {size}'
            )
        return encoded


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a data set is made from.

    Attributes:
      origin: The files and options that were given, for the manifest.
      classes: The names of the K classes, in the order of the labels.
      splits: The images of each split, by its name in TFDS.
    """

    origin: dict[str, str | float]
    classes: tuple[str, ...]
    splits: dict[str, Images]

    def sha256(self) -> str:
        """Hash of the classes and of the names, labels and sizes of the images of each split, wherever they are."""
        splits = {name: [s.names, s.labels.tolist(), s.sizes.tolist()] for name, s in self.splits.items()}
        return digests.of_plain([self.classes, splits])


def hold_out_test(train: Images, fraction: float) -> dict[str, Images]:
    """The splits of images that have only one: test images are held out as `image_folder` does it.

    Args:
      train: All images.
      fraction: The expected fraction of test images.

    Raises:
      InputError: A split would be empty.
    """
    held_out = folder_source.is_held_out(train.ids, 'test', fraction)
    if held_out.all() or not held_out.any():
        raise errors.InputError(
            f'test_fraction {fraction:g} leaves no image of the {len(train)} of {train.container} for training or for '
            'testing; change it, or make the folders train and test'
        )
    return {'train': train.take(np.flatnonzero(~held_out)), 'test': train.take(np.flatnonzero(held_out))}

"""Finished batches of adversarial images on disk, so that a long crafting run can resume where it was stopped."""

import contextlib
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from rfn_jax.core import digests, errors, io


class FinishedBatches:
    """The finished batches of one adversarial set: `<directory>/<number>.npz`, each with the hash of its origin.

    Args:
      directory: A folder used for nothing else; created when the first batch is saved.
      origin: What they are made from: plain JSON values.

    Raises:
      InputError: The directory holds something else.
    """

    def __init__(self, directory: os.PathLike[str] | str, origin: Mapping[str, Any]):
        self.directory = epath.Path(directory)
        self._origin = digests.of_plain(origin)
        if self.directory.is_dir() and (others := [p.name for p in self.directory.iterdir() if not _is_ours(p.name)]):
            raise errors.InputError(f'{self.directory} holds {others[0]}, which is not a batch of an adversarial set')

    def load(self, number: int, ids: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray | None:
        """Returns the images of a batch, uint8 `[B, H, W, C]`.

        None if they are missing or damaged, of other examples, or made from something else.
        """
        try:
            content = (self.directory / f'{number}.npz').read_bytes()
            with io.npz_arrays(content) as arrays:
                images = arrays['images']
                same = np.array_equal(arrays['ids'], ids) and images.shape == (len(ids), *image_shape)
                same = same and str(arrays['origin']) == self._origin
                return images if same and images.dtype == np.uint8 else None
        except io.DAMAGED:
            return None

    def save(self, number: int, ids: np.ndarray, images: np.ndarray) -> None:
        """Saves the adversarial images of a batch.

        Raises:
          RunError: The directory cannot be written.
        """
        content = io.npz_bytes(images=images, ids=ids, origin=np.array(self._origin))
        io.write_bytes(self.directory / f'{number}.npz', content)

    def clear(self) -> None:
        """Deletes all batches and nothing else; call it once the complete set is saved."""
        if self.directory.is_dir():
            for path in self.directory.iterdir():
                if _is_ours(path.name):
                    path.unlink(missing_ok=True)
            with contextlib.suppress(OSError, ValueError):  # not empty
                self.directory.rmdir()


def _is_ours(name: str) -> bool:
    return re.fullmatch(r'\d+\.npz|\.\d+\.npz\..*', name) is not None

"""A source whose images are brought to one size when they are accessed."""

import numpy as np

from rfn_jax.data import resizing, sources


class ResizedSource:
    """The examples of a source with images of any size, each brought to the size of the data set.

    Args:
      originals: The source.
      transform: How their images are resized.
    """

    def __init__(self, originals: sources.Source, transform: resizing.ResizeAndCrop):
        self.originals, self.transform = originals, transform

    @property
    def source(self) -> str:
        """Where the images come from."""
        return self.originals.source

    @property
    def ids(self) -> np.ndarray:
        """The ids of the examples, int64 `[N]`."""
        return self.originals.ids

    def __len__(self) -> int:
        return len(self.originals)

    def __getitem__(self, position: int) -> sources.Record:
        record = self.originals[position]
        return record._replace(image=self.transform(record.image))

"""What a data set is: labeled images by position, in three splits. Also the table of data sets that a config can name.

Axes: `N` examples, `H W` rows and columns, `C` channels, `K` classes.
"""

import dataclasses
from typing import NamedTuple, Protocol

import numpy as np

from rfn_jax.core import registry
from rfn_jax.data import info as info_lib

SOURCES = registry.Registry('data set')


class Record(NamedTuple):
    """One example, or a batch of them.

    Attributes:
      image: uint8 `[H, W, C]`.
      label: int32, in `[0, K)`.
      id: int64, at least 0; together with the name of its source it identifies the example, and it seeds the random draws for
        the example (on the devices, its lowest 32 bits do).
    """

    image: np.ndarray
    label: np.ndarray
    id: np.ndarray


class Source(Protocol):
    """Examples by position, in memory or not: there are `len(source)` of them, and `source[position]` is a `Record`.

    Attributes:
      source: Where the images come from, such as `'cifar10/test'`.
      ids: The ids of the examples, int64 `[N]`, known without reading an image.
    """

    @property
    def source(self) -> str:
        """See the attributes."""
        ...

    @property
    def ids(self) -> np.ndarray:
        """See the attributes."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> Record: ...


@dataclasses.dataclass(frozen=True)
class Splits:
    """The examples to train on, to tune on, and to report on; no example is in more than one split.

    Attributes:
      info: The metadata of all splits.
      train: For training.
      validation: For any choice that is made: the early-stopping epoch, rho, and so on.
      test: For the reported figures.
    """

    info: info_lib.DataInfo
    train: Source
    validation: Source
    test: Source

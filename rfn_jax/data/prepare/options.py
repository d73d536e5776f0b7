"""How images are stored by `prepare`."""

import dataclasses

from rfn_jax.core import checks, errors
from rfn_jax.data import decoding

MEBIBYTE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Options:
    """Options that decide the bytes of a data set.

    Attributes:
      channels: 3 for color, 1 for gray: what the data set says its images have, and what shrunken ones are stored with.
      max_side: Larger images are shrunk until their shorter side has this length, and stored as JPEG of quality 95; None to
        store all images as they are.
      shard_mb: Approximate size of a shard in MiB of images; None for at most 256, and for at least 16 shards of at least 4.

    Raises:
      InputError: A value is out of range.
    """

    channels: int = 3
    max_side: int | None = None
    shard_mb: float | None = None

    def __post_init__(self):
        if self.channels not in decoding.MODES:
            raise errors.InputError(f'channels must be 1 or 3, got {self.channels!r}')
        if self.max_side is not None:
            checks.integer('max_side', self.max_side, at_least=1)
        if self.shard_mb is not None:
            checks.number('shard_mb', self.shard_mb, above=0)

    def num_shards(self, examples: int, size: int) -> int:
        """The number of shards for images that have `size` bytes together."""
        if self.shard_mb is None:
            wanted = max(size / (256 * MEBIBYTE), min(16, size / (4 * MEBIBYTE)))
        else:
            wanted = size / (self.shard_mb * MEBIBYTE)
        return max(1, min(examples, round(wanted)))

"""Records of a source by position, decoded in the background by Grain, or a whole source read into memory."""

from collections.abc import Iterator

import numpy as np

from rfn_jax.core import errors
from rfn_jax.data import dataset, sources
from rfn_jax.data import info as info_lib

THREADS, BUFFERED = 4, 8  # decoding threads, and batches in the buffer


def read_batches(
    source: sources.Source, info: info_lib.DataInfo, positions: np.ndarray, batch_size: int
) -> Iterator[sources.Record]:
    """Yields the records at the given positions, in that order.

    Args:
      source: The source that holds them.
      info: The metadata of their data set.
      positions: Integers `[M]`.
      batch_size: Records in a batch; the last one may have fewer.

    Yields:
      Records with arrays `[B, H, W, C]`, `[B]` and `[B]`.

    Raises:
      InputError: An image does not have the shape in `info`.
    """
    import grain  # data sets in memory do not need it

    def read(position: np.integer) -> sources.Record:
        record = source[int(position)]
        _check_shape(np.shape(record.image), info, f'the image at position {position} of {source.source}')
        return record

    records = grain.MapDataset.source(positions).map(read).batch(batch_size)
    yield from records.to_iter_dataset(grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=BUFFERED))


def in_memory(source: sources.Source, info: info_lib.DataInfo) -> dataset.ImageDataset:
    """Reads and decodes all examples of a source.

    Raises:
      InputError: An image does not have the shape in `info`.
    """
    if isinstance(source, dataset.ImageDataset):
        _check_shape(source.image_shape, info, f'each image of {source.source}')
        return source
    batches = list(read_batches(source, info, np.arange(len(source)), 256))
    images, labels, ids = (np.concatenate(field) for field in zip(*batches, strict=True))
    return dataset.ImageDataset(images, labels.astype(np.int32), ids.astype(np.int64), info.class_names, source.source)


def _check_shape(shape: tuple[int, ...], info: info_lib.DataInfo, what: str) -> None:
    if shape != info.image_shape:
        raise errors.InputError(
            f'{what} is {list(shape)}, not {list(info.image_shape)}: all images of a data set must have the same shape'
        )

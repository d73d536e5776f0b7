"""Records of a source by position, decoded in the background by Grain; or a whole source in memory."""

from collections.abc import Iterator

import numpy as np

from rfn_jax.core import errors
from rfn_jax.data import dataset, sources
from rfn_jax.data import info as info_lib

THREADS, BUFFERED = 4, 8  # that decode, and batches that wait


def read_batches(
    source: sources.Source, info: info_lib.DataInfo, positions: np.ndarray, batch_size: int
) -> Iterator[sources.Record]:
    """The records at some positions, in their order.

    Args:
      source: Where they are.
      info: What is known of them.
      positions: Integers `[M]`.
      batch_size: Records in a batch; the last one may have fewer.

    Yields:
      Records with arrays `[B, H, W, C]`, `[B]` and `[B]`.

    Raises:
      InputError: An image has another shape than `info` says.
    """
    import grain  # data sets in memory do not need it

    def read(position: np.integer) -> sources.Record:
        record = source[int(position)]
        _check_shape(np.shape(record.image), info, f'the image at position {position} of {source.source}')
        return record

    records = grain.MapDataset.source(positions).map(read).batch(batch_size)
    yield from records.to_iter_dataset(grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=BUFFERED))


def in_memory(source: sources.Source, info: info_lib.DataInfo) -> dataset.ImageDataset:
    """All examples of a source, decoded.

    Raises:
      InputError: An image has another shape than `info` says.
    """
    if isinstance(source, dataset.ImageDataset):
        _check_shape(source.image_shape, info, f'each image of {source.source}')
        return source
    batches = list(read_batches(source, info, np.arange(len(source)), 256))
    images, labels, ids = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return dataset.ImageDataset(images, labels.astype(np.int32), ids.astype(np.int64), info.class_names, source.source)


def _check_shape(shape: tuple[int, ...], info: info_lib.DataInfo, what: str) -> None:
    if shape != info.image_shape:
        raise errors.InputError(
            f'{what} is {list(shape)}, not {list(info.image_shape)}: all images of a data set must have one shape'
        )

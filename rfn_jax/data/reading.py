"""Records of a source by position, decoded in the background by Grain; or a whole source in memory."""

from collections.abc import Iterator

import numpy as np

from rfn_jax.core import errors
from rfn_jax.data import dataset, sources
from rfn_jax.data import info as info_lib

THREADS, BUFFERED = 4, 8  # that decode, and batches that wait


def read_batches(source: sources.Source, positions: np.ndarray, batch_size: int) -> Iterator[sources.Record]:
    """The records at some positions, in their order.

    Args:
      source: Where they are.
      positions: Integers `[M]`.
      batch_size: Records in a batch; the last one may have fewer.

    Yields:
      Records with arrays `[B, H, W, C]`, `[B]` and `[B]`.
    """
    import grain  # data sets in memory do not need it

    records = grain.MapDataset.source(positions).map(lambda position: source[int(position)]).batch(batch_size)
    yield from records.to_iter_dataset(grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=BUFFERED))


def in_memory(source: sources.Source, info: info_lib.DataInfo) -> dataset.ImageDataset:
    """All examples of a source, decoded.

    Raises:
      InputError: The images are not what `info` says.
    """
    if isinstance(source, dataset.ImageDataset):
        return source
    batches = list(read_batches(source, np.arange(len(source)), 256))
    images, labels, ids = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    if images.shape[1:] != info.image_shape:
        raise errors.InputError(f'images of {source.source} are {list(images.shape[1:])}, not {list(info.image_shape)}')
    return dataset.ImageDataset(images, labels.astype(np.int32), ids.astype(np.int64), info.class_names, source.source)

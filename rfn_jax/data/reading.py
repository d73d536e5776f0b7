"""Records of a source by position, decoded in the background by Grain, or a whole source read into memory."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from absl import flags

from rfn_jax.core import errors
from rfn_jax.data import dataset, sources
from rfn_jax.data import info as info_lib

THREADS, BUFFERED = 4, 8  # decoding threads, and batches in the buffer


def read_batches(
    source: sources.Source,
    positions: np.ndarray,
    batch_size: int,
    *,
    image_shape: tuple[int, int, int] | None = None,
    transform: Callable[[sources.Record], np.ndarray] | None = None,
    workers: int = 0,
) -> Iterator[sources.Record]:
    """Yields the records at the given positions, in that order.

    Args:
      source: The source that holds them.
      positions: Integers `[M]`.
      batch_size: Records in a batch; the last one may have fewer.
      image_shape: `(H, W, C)` that each image must have; by default the shape of the first one that is read.
      transform: Function from a record to the image to use in its place.
      workers: Number of processes that read and decode, which take a second to start; with 0, threads of this process do.
        Pillow decodes without Python's lock, so threads keep a few cores busy; processes pay off with more.

    Yields:
      Records with arrays `[B, H, W, C]`, `[B]` and `[B]`.

    Raises:
      InputError: An image does not have that shape, or cannot be read.
    """
    import grain  # data sets in memory do not need it

    if image_shape is None and len(positions):
        image_shape = np.shape(source[int(positions[0])].image)

    def read(position: np.integer) -> sources.Record:
        record = source[int(position)]
        if transform is not None:
            record = record._replace(image=transform(record))
        _check_shape(np.shape(record.image), image_shape, f'the image at position {position} of {source.source}')
        return record

    records = grain.MapDataset.source(positions).map(read).batch(batch_size)
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=BUFFERED)
    batches = records.to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain reads its flags, which only `absl.app` parses
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    yield from batches


def in_memory(
    source: sources.Source, info: info_lib.DataInfo, positions: np.ndarray | None = None
) -> dataset.ImageDataset:
    """Reads and decodes the examples of a source.

    Args:
      source: The source.
      info: The metadata of its data set.
      positions: Which examples to read, integers `[M]`; by default all.

    Raises:
      InputError: An image does not have the shape in `info`, or cannot be read.
    """
    if isinstance(source, dataset.ImageDataset):
        _check_shape(source.image_shape, info.image_shape, f'each image of {source.source}')
        return source if positions is None else source.take(positions)
    positions = np.arange(len(source)) if positions is None else np.asarray(positions)
    batches = list(read_batches(source, positions, 256, image_shape=info.image_shape))
    images, labels, ids = (np.concatenate(field) for field in zip(*batches, strict=True))
    return dataset.ImageDataset(images, labels.astype(np.int32), ids.astype(np.int64), info.class_names, source.source)


def padded_batches(
    source: sources.Source, batch_size: int, numbers: Sequence[int] | np.ndarray | None = None
) -> Iterator[tuple[sources.Record, int]]:
    """Yields batches of one size, the last one padded with copies of the last example, so that one compilation serves all.

    Args:
      source: The examples, in memory or not; their order is kept.
      batch_size: Examples in a batch.
      numbers: Which batches to yield, counted from 0, in increasing order; by default all. No others are read.

    Yields:
      `(batch, count)`: records with arrays, as `read_batches` gives; only the first `count` examples of the batch count.
    """
    numbers = range(-(-len(source) // batch_size)) if numbers is None else numbers
    chosen = [np.arange(start, min(start + batch_size, len(source))) for start in np.asarray(numbers) * batch_size]
    if isinstance(source, dataset.ImageDataset):
        for positions in chosen:
            yield source[_padded(positions, batch_size)], len(positions)
    elif chosen:
        for batch in read_batches(source, np.concatenate(chosen), batch_size):
            rows = _padded(np.arange(len(batch.label)), batch_size)
            yield sources.Record(*(field[rows] for field in batch)), len(batch.label)


def _padded(positions: np.ndarray, size: int) -> np.ndarray:
    """The positions, and copies of the last one up to `size`."""
    return positions[np.minimum(np.arange(size), len(positions) - 1)]


def _check_shape(shape: tuple[int, ...], expected: tuple[int, ...] | None, what: str) -> None:
    if shape != expected:
        raise errors.InputError(
            f'{what} is {list(shape)}, not {list(expected or ())}: all images of a data set must have the same shape'
        )

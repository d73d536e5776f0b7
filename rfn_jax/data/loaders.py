"""The batches of an epoch, on the mesh: from a training set stored on the devices, or streamed to them.

The contents of batch `s` of epoch `e` depend on the seed, `e` and `s` alone: both loaders give the same batches, on any
number of devices and hosts, and a run can resume anywhere. Only the streaming loader augments images on the host.

Axes: `B` examples of the global batch, `k` steps of a call, `H W` rows and columns, `C` channels.
"""

import copy
from collections.abc import Iterator
from typing import Protocol

import jax
import numpy as np
from flax import struct
from jax.sharding import Mesh

from rfn_jax.core import checks, errors, sharding
from rfn_jax.data import batches, dataset, host_augmentation, reading, sources
from rfn_jax.data import info as info_lib

RESIDENT_BYTES = 1 << 30  # the largest training set that `loader` puts on every device


@struct.dataclass
class Batch:
    """Training examples on the mesh, sharded along B; a batch for `k` steps has an additional leading axis k.

    Attributes:
      images: uint8 `[B, H, W, C]`.
      labels: int32 `[B]`.
      ids: uint32 `[B]`, the lowest 32 bits of the ids, from which the augmentation keys are derived.
    """

    images: jax.Array
    labels: jax.Array
    ids: jax.Array


class Loader(Protocol):
    """The batches of a training set.

    Attributes:
      batch_size: B.
      steps_per_epoch: Number of batches in an epoch; examples that do not fill a whole batch are left out.
      seed: Seed of the order and of the augmentation.
    """

    batch_size: int
    steps_per_epoch: int
    seed: int

    def epoch(self, epoch: int, *, steps_per_call: int = 1, first_step: int = 0) -> Iterator[Batch]:
        """Yields the batches of an epoch, on the mesh.

        Args:
          epoch: Number of the epoch.
          steps_per_call: k; with 1, batches do not have the axis k. The last batch of an epoch may have fewer steps.
          first_step: The first step of the epoch that is wanted, counted from 0.
        """
        ...


def is_large(source: sources.Source, info: info_lib.DataInfo) -> bool:
    """Returns whether the images of a source are too large to store on every device: more than 1 GiB."""
    return len(source) * int(np.prod(info.image_shape)) > RESIDENT_BYTES


def is_streamed(
    source: sources.Source,
    info: info_lib.DataInfo,
    streaming: bool | None,
    augmentation: host_augmentation.HostAugmentation | None = None,
) -> bool:
    """Returns whether `loader` streams a training set; its arguments are those of `loader`.

    Raises:
      InputError: `streaming` is False, and images are augmented on the host.
    """
    check_streaming(streaming, augmentation)
    if streaming is None:
        return augmentation is not None or is_large(source, info)
    return streaming


def check_streaming(streaming: bool | None, augmentation: host_augmentation.HostAugmentation | None) -> None:
    """Checks that images which are augmented on the host are not to be stored on the devices.

    Raises:
      InputError: `streaming` is False, and there is an augmentation on the host.
    """
    if augmentation is not None and streaming is False:
        raise errors.InputError(
            'random_resized_crop and rand_augment change the images while they are read, so the images cannot be stored on '
            'the devices: streaming must be True or None, got False'
        )


def loader(
    source: sources.Source,
    info: info_lib.DataInfo,
    *,
    batch_size: int,
    seed: int,
    mesh: Mesh,
    streaming: bool | None = None,
    augmentation: host_augmentation.HostAugmentation | None = None,
    workers: int = 0,
) -> Loader:
    """Returns the loader of a training set.

    Args:
      source: The examples.
      info: The metadata of their data set.
      batch_size: B, at most the number of examples; a multiple of the number of devices.
      seed: Seed of the order.
      mesh: Mesh with the axis `'data'`.
      streaming: Whether batches are decoded while the devices work; by default, only if the images take more than 1 GiB or
        are augmented on the host.
      augmentation: What is done to the images on the host, or None; it also uses the seed.
      workers: Number of processes that decode streamed images; see `read_batches`.

    Raises:
      InputError: `batch_size` is not in `[1, examples]`, an image that is read does not have the shape in `info`, or
        `streaming` is False and there is an augmentation on the host.
    """
    if is_streamed(source, info, streaming, augmentation):
        options = {'batch_size': batch_size, 'seed': seed, 'mesh': mesh, 'augmentation': augmentation}
        return StreamingLoader(source, info, **options, workers=workers)
    return ResidentLoader(reading.in_memory(source, info), batch_size=batch_size, seed=seed, mesh=mesh)


def with_seed(loader: Loader, seed: int) -> Loader:
    """Returns a loader of the same examples in the order of another seed; a training set on the devices is shared."""
    other = copy.copy(loader)
    other.seed = seed
    return other


class ResidentLoader:
    """Batches of a training set that every device holds in full; see `Loader` and `loader`."""

    def __init__(self, examples: dataset.ImageDataset, *, batch_size: int, seed: int, mesh: Mesh):
        self.batch_size, self.seed = batch_size, seed
        self.steps_per_epoch = batches.steps_per_epoch(len(examples), batch_size)
        self._mesh, self._count = mesh, len(examples)
        whole = Batch(examples.images, examples.labels, examples.ids.astype(np.uint32))
        self._whole = sharding.replicate(whole, mesh)
        self._take = {
            stacked: jax.jit(
                _take, out_shardings=sharding.rows_sharding(mesh) if stacked else sharding.batch_sharding(mesh)
            )
            for stacked in (False, True)
        }

    def epoch(self, epoch: int, *, steps_per_call: int = 1, first_step: int = 0) -> Iterator[Batch]:
        """See `Loader.epoch`; all batches are gathered, on the devices, before the first one is yielded.

        The steps then wait for nothing. (On virtual CPU devices, programs that run between them could starve their
        collectives.)
        """
        order = np.asarray(batches.epoch_order(self._count, self.batch_size, seed=self.seed, epoch=epoch))
        stacked = steps_per_call > 1
        calls = [call if stacked else call[0] for call in _split_calls(order[first_step:], steps_per_call)]
        positions = sharding.replicate(calls, self._mesh)
        yield from jax.block_until_ready([self._take[stacked](self._whole, call) for call in positions])


def _take(whole: Batch, positions: jax.Array) -> Batch:
    return jax.tree.map(lambda leaf: leaf[positions], whole)


class StreamingLoader:
    """Batches read from a training set as they are needed: each process reads what its devices need; see `Loader`."""

    def __init__(
        self,
        source: sources.Source,
        info: info_lib.DataInfo,
        *,
        batch_size: int,
        seed: int,
        mesh: Mesh,
        augmentation: host_augmentation.HostAugmentation | None = None,
        workers: int = 0,
    ):
        self.batch_size, self.seed = batch_size, seed
        self.steps_per_epoch = batches.steps_per_epoch(len(source), batch_size)
        self._mesh, self._source, self._info, self._augmentation = mesh, source, info, augmentation
        self._workers = checks.integer('workers', workers, at_least=0)

    def epoch(self, epoch: int, *, steps_per_call: int = 1, first_step: int = 0) -> Iterator[Batch]:
        """See `Loader.epoch`; the next batches are decoded in the background.

        Raises:
          InputError: An image does not have the shape of the others in the data set.
        """
        order = np.asarray(batches.epoch_order(len(self._source), self.batch_size, seed=self.seed, epoch=epoch))
        mine = order[first_step:, sharding.local_rows(self.batch_size, self._mesh)]
        stacked = steps_per_call > 1
        placed = sharding.rows_sharding(self._mesh) if stacked else sharding.batch_sharding(self._mesh)
        source, transform, shape = self._source, None, self._info.image_shape
        if self._augmentation is not None:
            transform = self._augmentation.transform(source, shape, seed=self.seed, epoch=epoch)
            source = self._augmentation.source(source)
        options = {'image_shape': shape, 'transform': transform, 'workers': self._workers}
        records = reading.read_batches(source, mine.ravel(), mine.shape[1], **options)
        for call in _split_calls(mine, steps_per_call):
            steps = [next(records) for _ in call]
            images, labels, ids = (np.stack(field) if stacked else field[0] for field in zip(*steps, strict=True))
            local = Batch(images, labels.astype(np.int32), ids.astype(np.uint32))
            yield jax.tree.map(
                lambda leaf: sharding.from_local(leaf, placed, self.batch_size, axis=int(stacked)), local
            )


def _split_calls(order: np.ndarray, steps_per_call: int) -> list[np.ndarray]:
    """Splits the order of an epoch into the positions `[k, B]` of each call."""
    checks.integer('steps_per_call', steps_per_call, at_least=1)
    return [order[start : start + steps_per_call] for start in range(0, len(order), steps_per_call)]

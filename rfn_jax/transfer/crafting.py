"""Crafting on a data set, in batches of equal size that are sharded over the devices."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from rfn_jax import attacks, data, storage
from rfn_jax.core import checks, errors, preemption, processes, rng, sharding

POOL = 256


def default_pool(examples: data.ImageDataset) -> data.ImageDataset:
    """The images that attacks such as `admix` mix in by default: the examples with the lowest ids, at most 256."""
    return examples.take(pool_positions(examples.ids))


def pool_positions(ids: np.ndarray) -> np.ndarray:
    """The positions of the examples of `default_pool`, given the ids `[N]` of all examples."""
    return np.argsort(ids, kind='stable')[:POOL]


def craft_images(
    attack: attacks.Attack,
    surrogate: attacks.Surrogate,
    examples: data.ImageDataset,
    key: jax.Array,
    *,
    batch_size: int,
    mesh: Mesh,
    target_labels: np.ndarray | None = None,
    pool: data.ImageDataset | None = None,
    finished_batches: storage.FinishedBatches | None = None,
    advance: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """The adversarial images of a data set, rounded to uint8 inside the budget.

    The keys are derived from the ids of the examples, so the result does not depend on the batch size, the order or the
    number of devices and processes, except for the rounding of floats. With several processes, all return all images, and
    the first one stores the finished batches.

    Args:
      attack: The attack; calls with the same object share its compilation.
      surrogate: A pytree such as `Classifier`; surrogates of the same architecture share a compilation.
      examples: N examples.
      key: A scalar key.
      batch_size: Examples in a batch, at most N, rounded up to a multiple of the number of devices. Each process crafts
        batches of its own.
      mesh: Mesh with the axis `'data'`.
      target_labels: Target classes, int `[N]`, for targeted attacks.
      pool: The images that attacks such as `admix` mix in; by default the `default_pool` of the examples.
      finished_batches: Where finished batches are stored, and read instead of being crafted again.
      advance: Called after every batch.

    Returns:
      uint8 `[N, H, W, C]`.

    Raises:
      InputError: Target labels are missing or unexpected, or the attack raises it.
      RunError: A batch cannot be saved, or the device ran out of memory.
      PreemptedError: The run was asked to stop, between two batches.
    """
    checks.integer('batch_size', batch_size, at_least=1)
    if not len(examples):
        raise errors.InputError('craft_images needs at least one example, got none')
    if target_labels is not None:
        target_labels = np.asarray(target_labels)
        if target_labels.shape != (len(examples),) or not np.issubdtype(target_labels.dtype, np.integer):
            raise errors.InputError(
                f'target_labels must be integers, one for each of the {len(examples)} examples, got '
                f'{target_labels.dtype} {target_labels.shape}'
            )
    if jax.tree_util.all_leaves([surrogate]):
        surrogate = jax.tree_util.Partial(surrogate)
    surrogate, mesh = sharding.to_local(surrogate, mesh), sharding.local_mesh(mesh)
    largest = -(-len(examples) // processes.count())  # so that every process has a batch
    batch_size = -(-min(batch_size, largest) // mesh.size) * mesh.size
    extra = {}
    if attack.needs_pool:
        pool = default_pool(examples) if pool is None else pool
        pooled = (pool.images.astype(np.float32) / np.float32(255), pool.labels)
        extra['pool'] = jax.device_put(pooled, sharding.replicated(mesh))

    def craft(number: int, batch: data.Record) -> np.ndarray:
        """The adversarial images of a batch, uint8 `[B, H, W, C]`."""
        images = sharding.shard_batch(batch.image.astype(np.float32) / np.float32(255), mesh)
        labels = sharding.shard_batch(batch.label, mesh)
        keys = jax.device_put(rng.example_keys(key, batch.id), sharding.batch_sharding(mesh))
        if target_labels is not None:
            rows = np.minimum(np.arange(batch_size) + number * batch_size, len(examples) - 1)
            extra['target_labels'] = sharding.shard_batch(target_labels[rows].astype(np.int32), mesh)
        return attack.limits.quantize(np.asarray(attack(surrogate, images, labels, keys, **extra)), batch.image)

    crafted = np.empty((-(-len(examples) // batch_size) * batch_size, *examples.image_shape), np.uint8)
    missing = _load(finished_batches, examples, batch_size, crafted)
    for _ in range(len(crafted) // batch_size - len(missing)):
        advance()
    at_once = processes.count()
    for start in range(0, len(missing), at_once):
        preemption.check()
        together = missing[start : start + at_once]  # one batch for each process
        mine = [together[i] for i in processes.share_of(len(together))]
        images = [
            craft(n, batch) for n, (batch, _) in zip(mine, data.padded_batches(examples, batch_size, mine), strict=True)
        ]
        gathered = processes.gather(
            np.reshape(images, (-1, batch_size, *examples.image_shape)).astype(np.uint8), len(together)
        )
        for number, batch in zip(together, gathered, strict=True):
            rows = slice(number * batch_size, min((number + 1) * batch_size, len(examples)))
            crafted[rows] = batch[: rows.stop - rows.start]
            if finished_batches is not None:
                processes.on_first(finished_batches.save)(number, examples.ids[rows], crafted[rows])
            advance()
    return crafted[: len(examples)]


def _load(
    finished: storage.FinishedBatches | None, examples: data.ImageDataset, batch_size: int, crafted: np.ndarray
) -> list[int]:
    """Reads the finished batches into `crafted`, and returns the numbers of the others."""
    numbers = list(range(len(crafted) // batch_size))
    if finished is None:
        return numbers

    @processes.on_first
    def read() -> list[int]:
        missing = []
        for number in numbers:
            rows = slice(number * batch_size, min((number + 1) * batch_size, len(examples)))
            images = finished.load(number, examples.ids[rows], examples.image_shape)
            if images is None:
                missing.append(number)
            else:
                crafted[rows] = images
        return missing

    missing = read()
    if len(missing) < len(numbers):
        crafted[...] = processes.arrays_from_first(lambda: crafted, crafted)
    return missing

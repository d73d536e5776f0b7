"""Crafting on a data set, in batches of equal size that are sharded over the devices."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from rfn_jax import attacks, data, storage
from rfn_jax.core import checks, errors, rng, sharding

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
    number of devices, except for the rounding of floats.

    Args:
      attack: The attack; calls with the same object share its compilation.
      surrogate: A pytree such as `Classifier`; surrogates of the same architecture share a compilation.
      examples: N examples.
      key: A scalar key.
      batch_size: Examples in a batch, at most N, rounded up to a multiple of the number of devices.
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
    replicated = sharding.replicated(mesh)
    if jax.tree_util.all_leaves([surrogate]):
        surrogate = jax.tree_util.Partial(surrogate)
    surrogate = jax.device_put(surrogate, replicated)
    batch_size = -(-min(batch_size, len(examples)) // mesh.size) * mesh.size
    extra = {}
    if attack.needs_pool:
        pool = default_pool(examples) if pool is None else pool
        extra['pool'] = jax.device_put((pool.images.astype(np.float32) / np.float32(255), pool.labels), replicated)
    crafted = []
    for number, (batch, count) in enumerate(data.padded_batches(examples, batch_size)):
        finished = (
            None if finished_batches is None else finished_batches.load(number, batch.id[:count], examples.image_shape)
        )
        if finished is None:
            images = sharding.shard_batch(batch.image.astype(np.float32) / np.float32(255), mesh)
            labels = sharding.shard_batch(batch.label, mesh)
            keys = jax.device_put(rng.example_keys(key, batch.id), sharding.batch_sharding(mesh))
            if target_labels is not None:
                rows = np.minimum(np.arange(batch_size) + number * batch_size, len(examples) - 1)
                extra['target_labels'] = sharding.shard_batch(target_labels[rows].astype(np.int32), mesh)
            adversarial = np.asarray(attack(surrogate, images, labels, keys, **extra))
            finished = attack.limits.quantize(adversarial, batch.image)[:count]
            if finished_batches is not None:
                finished_batches.save(number, batch.id[:count], finished)
        crafted.append(finished)
        advance()
    return np.concatenate(crafted)

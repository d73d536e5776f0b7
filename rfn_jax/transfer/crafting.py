"""Crafting over a data set, in batches of one size, sharded over the devices."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from rfn_jax import attacks, data, storage
from rfn_jax.core import checks, errors, rng, sharding

POOL = 256


def default_pool(examples: data.ImageDataset) -> data.ImageDataset:
    """What attacks such as `admix` mix in where nothing else is given: the examples with the lowest ids, 256 at most."""
    return examples.take(np.argsort(examples.ids, kind='stable')[:POOL])


def craft(
    attack: attacks.Attack,
    surrogate: attacks.Surrogate,
    examples: data.ImageDataset,
    key: jax.Array,
    *,
    batch_size: int,
    mesh: Mesh,
    target_labels: np.ndarray | None = None,
    pool: data.ImageDataset | None = None,
    parts: storage.FinishedBatches | None = None,
    advance: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """The adversarial images of a data set, rounded to uint8 inside the budget.

    The keys are made from the ids of the examples, so the result does not depend on the batch size, on the order or on
    the number of devices, but for the rounding of floats.

    Args:
      attack: The attack; one object for all calls shares its compilation.
      surrogate: A pytree such as `Classifier`; surrogates of one architecture share a compilation.
      examples: N examples.
      key: A scalar key.
      batch_size: Examples in a batch, cut to N and rounded up to a multiple of the number of devices.
      mesh: Mesh with the axis `'data'`.
      target_labels: Classes to reach, int `[N]`, for targeted attacks.
      pool: What attacks such as `admix` mix in, if the attack does; by default the `default_pool` of the examples.
      parts: Where finished batches are kept, and taken from if they are there.
      advance: Called after every batch.

    Returns:
      uint8 `[N, H, W, C]`.

    Raises:
      InputError: Target labels are missing or not wanted; or as the attack.
      RunError: A part cannot be saved, or the device ran out of memory.
    """
    checks.integer('batch_size', batch_size, at_least=1)
    if not len(examples):
        raise errors.InputError('craft needs at least one example, got none')
    if target_labels is not None:
        target_labels = np.asarray(target_labels)
        if target_labels.shape != (len(examples),) or not np.issubdtype(target_labels.dtype, np.integer):
            raise errors.InputError(
                f'target_labels must be integers, one for each of the {len(examples)} examples, got '
                f'{target_labels.dtype} {target_labels.shape}'
            )
    whole = sharding.replicated(mesh)
    if jax.tree_util.all_leaves([surrogate]):
        surrogate = jax.tree_util.Partial(surrogate)
    surrogate = jax.device_put(surrogate, whole)
    batch_size = -(-min(batch_size, len(examples)) // mesh.size) * mesh.size
    more = {}
    if attack.needs_pool:
        pool = default_pool(examples) if pool is None else pool
        more['pool'] = jax.device_put((pool.images.astype(np.float32) / np.float32(255), pool.labels), whole)
    done = []
    for number, (batch, count) in enumerate(data.padded_batches(examples, batch_size)):
        found = None if parts is None else parts.load(number, batch.ids[:count], examples.image_shape)
        if found is None:
            images = sharding.shard_batch(batch.images.astype(np.float32) / np.float32(255), mesh)
            labels = sharding.shard_batch(batch.labels, mesh)
            keys = jax.device_put(rng.example_keys(key, batch.ids), sharding.batch_sharding(mesh))
            if target_labels is not None:
                rows = np.minimum(np.arange(batch_size) + number * batch_size, len(examples) - 1)
                more['target_labels'] = sharding.shard_batch(target_labels[rows].astype(np.int32), mesh)
            adversarial = np.asarray(attack(surrogate, images, labels, keys, **more))
            found = attack.limits.quantize(adversarial, batch.images)[:count]
            if parts is not None:
                parts.save(number, batch.ids[:count], found)
        done.append(found)
        advance()
    return np.concatenate(done)

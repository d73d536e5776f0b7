"""Crafting over a data set, in batches of one size, sharded over the devices."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from rfn_jax import attacks, data
from rfn_jax.core import rng, sharding


def craft(
    attack: attacks.Attack,
    surrogate: attacks.Surrogate,
    examples: data.ImageDataset,
    key: jax.Array,
    *,
    batch_size: int,
    mesh: Mesh,
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
      advance: Called after every batch.

    Returns:
      uint8 `[N, H, W, C]`.
    """
    surrogate = jax.device_put(surrogate, sharding.replicated(mesh))
    batch_size = -(-min(batch_size, len(examples)) // mesh.size) * mesh.size
    parts = []
    for batch, count in data.padded_batches(examples, batch_size):
        images = sharding.shard_batch(batch.images.astype(np.float32) / np.float32(255), mesh)
        labels = sharding.shard_batch(batch.labels, mesh)
        keys = jax.device_put(rng.example_keys(key, batch.ids), sharding.batch_sharding(mesh))
        adversarial = np.asarray(attack(surrogate, images, labels, keys))
        parts.append(attack.limits.quantise(adversarial, batch.images)[:count])
        advance()
    return np.concatenate(parts)

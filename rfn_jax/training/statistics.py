"""Batch statistics estimated again, for weights that no forward pass has used, such as an average.

Axes: `N` examples, `B` examples of a batch.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rfn_jax import data, models
from rfn_jax.core import errors, numerics, rng, sharding


def reestimate_batch_stats(
    classifier: models.Classifier, examples: data.Source, *, batch_size: int, mesh: Mesh
) -> models.Classifier:
    """Replaces the running statistics of a classifier with the mean of the statistics of batches.

    This is what `update_bn` of PyTorch does, but with the biased variance of Flax and without the examples that do not fill a
    whole batch. Dropout is on, with the same masks in all batches.

    Args:
      classifier: The classifier; only its parameters are used.
      examples: N training examples; `N // batch_size` whole batches of them are used, in order.
      batch_size: B, at most N; a multiple of the number of devices.
      mesh: Mesh with the axis `'data'`.

    Returns:
      The same classifier with new `batch_stats`; unchanged if it has none.

    Raises:
      InputError: `batch_size` is not in `[1, N]`, or is not a multiple of the number of devices.
    """
    if not 1 <= batch_size <= len(examples) or batch_size % mesh.size:
        raise errors.InputError(
            f'batch_size must be 1 to {len(examples)} and a multiple of {mesh.size} devices, got {batch_size}'
        )
    stats = classifier.variables.get('batch_stats', {})
    if not jax.tree.leaves(stats):
        return classifier
    whole = sharding.replicated(mesh)
    params = jax.device_put(classifier.variables['params'], whole)
    update = functools.partial(_update, classifier.module, classifier.mean, classifier.std, params)
    zeros = jax.device_put(jax.tree.map(np.zeros_like, jax.device_get(stats)), whole)
    total, count = zeros, len(examples) // batch_size
    for batch, _ in itertools.islice(data.padded_batches(examples, batch_size), count):
        images = sharding.shard_batch(batch.image, mesh)
        total = jax.tree.map(jnp.add, total, update(zeros, images))
    # A layer returns m * old + (1 - m) * new. Starting from zero, with one batch twice, the second over the first is 1 + m.
    once = update(zeros, images)
    stats = jax.tree.map(lambda t, a, b: t / (count * _share_of_new(a, b)), total, once, update(once, images))
    return classifier.replace(variables={**classifier.variables, 'batch_stats': stats})


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _update(module, mean, std, params, batch_stats, images: jax.Array):
    """Returns the running statistics after one forward pass in training mode; images are uint8 `[B, H, W, C]`."""
    images = models.normalize(images.astype(jnp.float32) / 255, mean, std)
    variables = {'params': params, 'batch_stats': batch_stats}
    rngs = {'dropout': rng.key_for(0, 'dropout')}
    return module.apply(variables, images, train=True, mutable=['batch_stats'], rngs=rngs)[1]['batch_stats']


def _share_of_new(once: jax.Array, twice: jax.Array) -> jax.Array:
    """Returns 1 - m, computed from the channel with the largest statistics; 1 if all statistics are zero."""
    best = jnp.argmax(jnp.abs(once))
    ratio = numerics.safe_divide(twice.ravel()[best], once.ravel()[best])
    return jnp.where(once.ravel()[best] == 0, 1.0, 2 - ratio)

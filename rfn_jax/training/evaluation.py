"""Predictions of a classifier on a data set, every example once.

Axes: `N` examples of the data set, `B` of a batch.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rfn_jax import data, models
from rfn_jax.core import sharding


@jax.jit
def _predict(classifier: models.Classifier, images: jax.Array) -> jax.Array:
    """Predicted classes int32 `[B]` of uint8 images `[B, H, W, C]`."""
    return jnp.argmax(classifier(images.astype(jnp.float32) / 255), axis=-1).astype(jnp.int32)


def predict(classifier: models.Classifier, examples: data.ImageDataset, *, batch_size: int, mesh: Mesh) -> np.ndarray:
    """The predicted class of each example.

    Computed in float32 whatever the type that the network is trained and attacked in, and without the shorter mantissas
    that accelerators take for float32 by default, so that what is measured does not depend on either.

    Args:
      classifier: A classifier for images of this shape.
      examples: N examples.
      batch_size: Examples in a batch; rounded up to a multiple of the number of devices.
      mesh: Mesh with the axis `'data'`.

    Returns:
      int32 `[N]`.
    """
    if isinstance(classifier, models.Classifier):
        classifier = models.full_precision(classifier)
    classifier = jax.device_put(classifier, sharding.replicated(mesh))
    batch_size = -(-batch_size // mesh.size) * mesh.size
    with jax.default_matmul_precision('float32'):
        parts = [
            (_predict(classifier, sharding.shard_batch(batch.images, mesh)), count)
            for batch, count in data.padded_batches(examples, batch_size)
        ]
    return np.concatenate([np.asarray(predictions)[:count] for predictions, count in parts])


def accuracy(classifier: models.Classifier, examples: data.ImageDataset, *, batch_size: int, mesh: Mesh) -> float:
    """The share of examples whose label the classifier predicts (natural accuracy), in [0, 1]."""
    predictions = predict(classifier, examples, batch_size=batch_size, mesh=mesh)
    return float(np.mean(predictions == examples.labels))

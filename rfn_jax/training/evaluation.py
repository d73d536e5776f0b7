"""Predictions of a classifier on a data set, with every example counted once.

Axes: `N` examples of the data set, `B` examples of a batch.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rfn_jax import data, models
from rfn_jax.core import sharding


@jax.jit
def _predict(classifier: models.Classifier, images: jax.Array) -> jax.Array:
    """Returns predicted classes int32 `[B]` for uint8 images `[B, H, W, C]`."""
    return jnp.argmax(classifier(images.astype(jnp.float32) / 255), axis=-1).astype(jnp.int32)


def predict(classifier: models.Classifier, examples: data.ImageDataset, *, batch_size: int, mesh: Mesh) -> np.ndarray:
    """Returns the predicted class of each example.

    Predictions are computed in float32, regardless of the type in which the network is trained and attacked, and without the
    shorter mantissas that accelerators use for float32 by default, so that measurements do not depend on either.

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
        batches = [
            (_predict(classifier, sharding.shard_batch(batch.images, mesh)), count)
            for batch, count in data.padded_batches(examples, batch_size)
        ]
    return np.concatenate([np.asarray(predictions)[:count] for predictions, count in batches])


def accuracy(classifier: models.Classifier, examples: data.ImageDataset, *, batch_size: int, mesh: Mesh) -> float:
    """Returns the fraction of examples whose label the classifier predicts (natural accuracy), in [0, 1]."""
    predictions = predict(classifier, examples, batch_size=batch_size, mesh=mesh)
    return float(np.mean(predictions == examples.labels))

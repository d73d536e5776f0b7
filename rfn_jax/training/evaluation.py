"""Predictions of classifiers on a data set, with every example counted once.

Axes: `N` examples of the data set, `B` examples of a batch.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rfn_jax import data, models
from rfn_jax.core import processes, sharding

PENDING = 8  # batches that the devices may be behind, so that the images of a large data set do not pile up there
TOP = 5


class Predictions(NamedTuple):
    """What classifiers predict for the examples of a data set.

    Attributes:
      labels: The true classes, int32 `[N]`.
      classes: For each classifier, the predicted classes, int32 `[N]`.
      in_top5: For each classifier, whether fewer than 5 other classes have a higher logit than the true one, booleans `[N]`.
    """

    labels: np.ndarray
    classes: dict[str, np.ndarray]
    in_top5: dict[str, np.ndarray]

    def correct(self, name: str) -> np.ndarray:
        """Whether a classifier predicts the true class of each example, booleans `[N]`."""
        return self.classes[name] == self.labels


@jax.jit
def _predict(classifier: models.Classifier, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The predicted classes int32 `[B]` and whether the labels are in the top 5, for uint8 images `[B, H, W, C]`."""
    logits = classifier(images.astype(jnp.float32) / 255)
    higher = logits > jnp.take_along_axis(logits, labels[:, None], axis=-1)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32), jnp.sum(higher, axis=-1) < TOP


def predict_all(
    classifiers: Mapping[str, models.Classifier], examples: data.Source, *, batch_size: int, mesh: Mesh
) -> Predictions:
    """Returns the predictions of several classifiers, after reading the examples once.

    Predictions are computed in float32, regardless of the type in which the network is trained and attacked, and without the
    shorter mantissas that accelerators use for float32 by default, so that measurements do not depend on either. Images of
    a source that is not in memory are decoded as they are needed, and are not kept. Several processes share the batches; each
    returns all predictions.

    Args:
      classifiers: Classifiers for images of this shape, by name; on the devices of this process, or on the mesh.
      examples: N examples.
      batch_size: Examples in a batch; rounded up to a multiple of the number of devices of a process.
      mesh: Mesh with the axis `'data'`.

    Raises:
      InputError: An image cannot be read.
    """
    classifiers = {name: _in_float32(sharding.to_local(c, mesh)) for name, c in classifiers.items()}
    mesh = sharding.local_mesh(mesh)
    batch_size = -(-batch_size // mesh.size) * mesh.size
    count = -(-len(examples) // batch_size)
    mine = processes.share_of(count)
    labels: list[np.ndarray] = []
    found: dict[str, list[np.ndarray]] = {name: [] for name in classifiers}
    pending: collections.deque = collections.deque()

    def collect():
        for name, result in pending.popleft().items():
            found[name].append(np.stack([np.asarray(values, np.int32) for values in result], axis=-1))

    with jax.default_matmul_precision('float32'):
        for batch, _ in data.padded_batches(examples, batch_size, mine):
            images, truth = sharding.shard_batch((batch.image, batch.label.astype(np.int32)), mesh)
            pending.append({name: _predict(c, images, truth) for name, c in classifiers.items()})
            labels.append(batch.label.astype(np.int32))
            if len(pending) > PENDING:
                collect()
    while pending:
        collect()

    def gather(batches: list[np.ndarray], *shape: int) -> np.ndarray:
        """The values `[N, ...]` of all examples, from the batches of this process."""
        stacked = np.reshape(batches, (len(mine), batch_size, *shape)).astype(np.int32)
        return processes.gather(stacked, count).reshape(-1, *shape)[: len(examples)]

    predicted = {name: gather(batches, 2) for name, batches in found.items()}
    classes = {name: values[:, 0] for name, values in predicted.items()}
    return Predictions(gather(labels), classes, {name: values[:, 1] > 0 for name, values in predicted.items()})


def _in_float32(classifier: models.Classifier) -> models.Classifier:
    return models.full_precision(classifier) if isinstance(classifier, models.Classifier) else classifier


def predict(classifier: models.Classifier, examples: data.Source, *, batch_size: int, mesh: Mesh) -> np.ndarray:
    """Returns the predicted class of each example, int32 `[N]`; see `predict_all`."""
    return predict_all({'': classifier}, examples, batch_size=batch_size, mesh=mesh).classes['']


def accuracies(
    classifiers: Sequence[models.Classifier], examples: data.Source, *, batch_size: int, mesh: Mesh
) -> list[float]:
    """Returns the natural accuracy of each classifier, in [0, 1]; the examples are read once. See `predict_all`."""
    named = {str(number): classifier for number, classifier in enumerate(classifiers)}
    found = predict_all(named, examples, batch_size=batch_size, mesh=mesh)
    return [float(np.mean(found.correct(name))) for name in named]


def accuracy(classifier: models.Classifier, examples: data.Source, *, batch_size: int, mesh: Mesh) -> float:
    """Returns the fraction of examples whose label the classifier predicts (natural accuracy), in [0, 1]."""
    return accuracies([classifier], examples, batch_size=batch_size, mesh=mesh)[0]

"""The mean loss over a data set as a function of the parameters, with its gradient and its Hessian-vector products.

Axes: `N` examples, `k` batches, `B` examples of a batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh

from rfn_jax import data, models
from rfn_jax.core import checks, errors, losses, sharding

Params = Any


@struct.dataclass
class MeanLoss:
    r"""The mean loss :math:`L(w) = \frac1N \sum_i \ell_i(w)`, computed batch by batch; a pytree, so it can be traced.

    Attributes:
      batches: A pytree of arrays `[k, B, ...]`: the examples. On a mesh, they are sharded along B.
      weights: float32 `[k, B]`: 1 for an example, and 0 for padding.
      constants: A pytree that every evaluation gets, such as running statistics.
      of_examples: `of_examples(params, constants, batch)` gives the losses `[B]` of a batch.
    """

    batches: Any
    weights: jax.Array
    constants: Any
    of_examples: Callable[[Params, Any, Any], jax.Array] = struct.field(pytree_node=False)

    def __call__(self, params: Params) -> jax.Array:
        """Returns :math:`L(w)`, a scalar."""
        return self._sum_over_batches(lambda batch, weights: self._weighted(params, batch, weights))

    def gradient(self, params: Params) -> Params:
        r"""Returns :math:`\nabla L(w)`, with the structure of the parameters."""
        return self._sum_over_batches(lambda batch, weights: jax.grad(self._weighted)(params, batch, weights))

    def hvp(self, params: Params, vector: Params) -> Params:
        r"""Returns the Hessian-vector product :math:`\nabla^2 L(w)\, v`, with the structure of the parameters."""

        def of_batch(batch: Any, weights: jax.Array) -> Params:
            gradient = jax.grad(lambda params: self._weighted(params, batch, weights))
            return jax.jvp(gradient, (params,), (vector,))[1]

        return self._sum_over_batches(of_batch)

    def _weighted(self, params: Params, batch: Any, weights: jax.Array) -> jax.Array:
        return jnp.sum(self.of_examples(params, self.constants, batch) * weights) / jnp.sum(self.weights)

    def _sum_over_batches(self, compute: Callable[[Any, jax.Array], Any]) -> Any:
        shapes = jax.eval_shape(compute, *jax.tree.map(lambda leaf: leaf[0], (self.batches, self.weights)))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        def add(total: Any, examples: tuple) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, compute(*examples)), None

        return jax.lax.scan(add, zeros, (self.batches, self.weights))[0]


def value(loss: MeanLoss, params: Params) -> float:
    """Returns :math:`L(w)`, compiled once for all losses of an architecture."""
    return float(_value(loss, params))


_value = jax.jit(MeanLoss.__call__)


def of_classifier(
    classifier: models.Classifier, examples: data.ImageDataset, *, batch_size: int, mesh: Mesh
) -> tuple[MeanLoss, Params]:
    """Returns the mean cross-entropy of a classifier on a data set, and its parameters.

    The classifier is in evaluation mode, with its running statistics, and computes in float32. Images are not augmented.

    Args:
      classifier: The classifier.
      examples: N examples.
      batch_size: B; rounded up to a multiple of the number of devices.
      mesh: The devices.

    Raises:
      InputError: There are no examples, or `batch_size` is below 1.
    """
    checks.integer('batch_size', batch_size, at_least=1)
    if not len(examples):
        raise errors.InputError('the loss of a classifier needs at least one example, got none')
    size = -(-min(batch_size, len(examples)) // mesh.size) * mesh.size
    padded = [(batch.image, batch.label, count) for batch, count in data.padded_batches(examples, size)]
    images, labels = (np.stack([batch[part] for batch in padded]) for part in range(2))
    weights = np.stack([np.arange(size) < count for _, _, count in padded]).astype(np.float32)
    placed = sharding.place((images, labels, weights), sharding.rows_sharding(mesh))
    classifier = models.full_precision(classifier)
    replicated = sharding.replicate(classifier.variables, mesh)
    constants = {name: value for name, value in replicated.items() if name != 'params'}
    loss = MeanLoss(placed[:2], placed[2], constants, _CrossEntropy(classifier.module, classifier.mean, classifier.std))
    return loss, replicated['params']


@dataclasses.dataclass(frozen=True)
class _CrossEntropy:
    """The losses `[B]` of a network; equal for all checkpoints of an architecture, which so share what is compiled."""

    module: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, params: Params, constants: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        images, labels = batch
        normalized = models.normalize(images.astype(jnp.float32) / 255, self.mean, self.std)
        logits = self.module.apply({'params': params, **constants}, normalized, train=False)
        return losses.cross_entropy(logits, labels)

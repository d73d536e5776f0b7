"""How the input gradients of a surrogate and of targets align.

Axes: `N` examples.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rfn_jax import data, models
from rfn_jax.core import losses, numerics, sharding


def input_gradient_cosines(
    surrogate: models.Classifier,
    targets: Mapping[str, models.Classifier],
    examples: data.ImageDataset,
    *,
    batch_size: int,
    mesh: Mesh,
) -> dict[str, np.ndarray]:
    r"""Returns the cosine between the gradients of the cross-entropy of a surrogate and of each target at the images.

    .. math:: \cos_i = \frac{\langle \nabla_x \ell(f(x_i), y_i), \nabla_x \ell(g(x_i), y_i) \rangle}
       {\|\nabla_x \ell(f(x_i), y_i)\|_2 \, \|\nabla_x \ell(g(x_i), y_i)\|_2}

    All networks compute in float32. A gradient of zero gives a cosine of 0.

    Args:
      surrogate: f.
      targets: The networks g, by name.
      examples: N examples.
      batch_size: Examples in a batch; rounded up to a multiple of the number of devices.
      mesh: The devices.

    Returns:
      For each target, float32 `[N]`.
    """
    networks = [surrogate, *targets.values()]
    networks = [sharding.to_local(models.full_precision(network), mesh) for network in networks]
    mesh = sharding.local_mesh(mesh)
    size = -(-batch_size // mesh.size) * mesh.size
    found: dict[str, list[np.ndarray]] = {name: [] for name in targets}
    for batch, count in data.padded_batches(examples, size):
        images, labels = sharding.shard_batch((batch.image.astype(np.float32) / np.float32(255), batch.label), mesh)
        own, *others = (_directions(network, images, labels) for network in networks)
        for name, other in zip(targets, others, strict=True):
            found[name].append(np.asarray(_cosines(own, other))[:count])
    return {name: np.concatenate(cosines) for name, cosines in found.items()}


@jax.jit
def _directions(network: models.Classifier, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The input gradients `[B, H, W, C]`, each of norm 1, or 0."""
    gradients = jax.grad(lambda x: jnp.sum(losses.cross_entropy(network(x), labels)))(images)
    return numerics.safe_divide(gradients, numerics.batch_norm_l2(gradients))


@jax.jit
def _cosines(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b, axis=(1, 2, 3))

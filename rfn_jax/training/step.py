"""One compiled training step.

Axes: `N` examples of the data set, `B` of the batch.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from rfn_jax import models
from rfn_jax.core import losses, rng, sharding
from rfn_jax.training import state as state_lib

Metrics = dict[str, jax.Array]


@struct.dataclass
class DeviceData:
    """A training set on the device, whole on each.

    Attributes:
      images: uint8 `[N, H, W, C]`.
      labels: int32 `[N]`.
      ids: uint32 `[N]`, the ids of the examples, from which their keys are made.
    """

    images: jax.Array
    labels: jax.Array
    ids: jax.Array


def train_step(
    module: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    tx: optax.GradientTransformation,
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    mesh: Mesh,
) -> Callable[[state_lib.TrainState, DeviceData, jax.Array, jax.Array], tuple[state_lib.TrainState, Metrics]]:
    """Builds the compiled step of a network and an optimiser.

    The loss is the mean cross-entropy of the batch. The optimiser receives `grad_fn`, the gradient of the same loss on the
    same augmented batch, so a minimiser such as `rfn_sam` can evaluate it elsewhere. Running batch statistics move once,
    at the unperturbed parameters; the gradient at any point uses the statistics of the batch at that point, over all
    devices together.

    Args:
      module: Flax module of the zoo.
      mean: Mean of each channel, for images in [0, 1].
      std: Standard deviation of each channel.
      tx: Optimiser; wrapped so that it accepts `grad_fn` if it does not.
      augment: Function of images `[B, H, W, C]` in [0, 1] and keys `[B]`.
      mesh: Mesh with the axis `'data'`.

    Returns:
      `step(state, data, positions, key) -> (state, metrics)`, jitted, with `state` donated: `positions` are int32 `[B]`,
      cut over the devices; `key` is the key of the epoch; `metrics` are the scalars `loss` and `accuracy`, before the
      update.
    """
    tx = optax.with_extra_args_support(tx)

    def step(state, data, positions, key):
        labels = data.labels[positions]
        keys = rng.example_keys(key, data.ids[positions])
        images = augment(data.images[positions].astype(jnp.float32) / 255, keys)
        images = models.normalise(images, mean, std)

        def loss_fn(params):
            logits, updated = module.apply(
                {'params': params, 'batch_stats': state.batch_stats}, images, train=True, mutable=['batch_stats']
            )
            loss = jnp.mean(losses.cross_entropy(logits, labels))
            return loss, (logits, updated.get('batch_stats', {}))

        (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)

        def grad_fn(params):
            return jax.grad(loss_fn, has_aux=True)(params)[0]

        updates, opt_state = tx.update(grads, state.opt_state, state.params, grad_fn=grad_fn)
        new_state = state_lib.TrainState(
            step=optax.safe_increment(state.step),
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return new_state, {'loss': loss, 'accuracy': jnp.mean(jnp.argmax(logits, -1) == labels)}

    whole, cut = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    return jax.jit(step, donate_argnums=0, in_shardings=(whole, whole, cut, whole), out_shardings=whole)

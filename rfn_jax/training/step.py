"""One compiled training step.

Axes: `N` examples of the data set, `B` of the batch.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from rfn_jax import models
from rfn_jax.core import numerics, rng, sharding
from rfn_jax.training import groups
from rfn_jax.training import objective as objective_lib
from rfn_jax.training import state as state_lib

Metrics = dict[str, jax.Array]
SHARPNESS = ('gradient_norm', 'perturbation_norm', 'ascent_count', 'skipped_count')


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
    minimiser: optax.GradientTransformation,
    descent: optax.GradientTransformation,
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    mesh: Mesh,
    *,
    group_size: int | str | None = None,
    micro_batch_size: int | None = None,
    shard_state: bool = False,
    scan: bool = False,
) -> Callable[[state_lib.TrainState, DeviceData, jax.Array, jax.Array], tuple[state_lib.TrainState, Metrics]]:
    """Builds the compiled step of a network and an optimiser, or several steps in one dispatch.

    The loss is the mean cross-entropy of the batch (see `objective` for auxiliary heads and dropout). The minimiser receives
    `grad_fn`, the gradient of the same loss on the same augmented batch, so that it can evaluate it elsewhere (and what
    `optim.esam` needs beside it); what it returns goes to `descent`.

    How a batch is cut up decides what shares a perturbation, and what batch normalisation sees:

    ==================  ==============================  =============================================  ==============
    `group_size`        perturbation                    batch statistics of a forward pass             all-reduces
    ==================  ==============================  =============================================  ==============
    None                one for the global batch        of the global batch, over all devices          two, and those
                                                                                                       of the statistics
    m (m-sharpness)     one for each m examples of the  of the m examples                              one, if a device
                        global batch                                                                   holds whole groups
    `'device'`          one for each device             of the examples on the device                  one
    ==================  ==============================  =============================================  ==============

    With groups, gradients, running statistics and the figures of the minimiser's state are means over the groups; a
    counter of it that grew in one group has grown. With `micro_batch_size` b the examples that share a perturbation pass
    in pieces of b, and batch normalisation sees one piece at a time. In all modes running statistics move once a step, at
    the unperturbed parameters, by the mean over groups and pieces; the variance within a group is a little lower than that
    of the batch.

    All results but those of `'device'` are the same on any number of devices, up to the rounding of floats. A batch whose
    statistics are not finite leaves the running ones alone.

    Args:
      module: Flax module of the zoo.
      mean: Mean of each channel, for images in [0, 1].
      std: Standard deviation of each channel.
      minimiser: Gives the gradient to descend along, such as `optim.rfn_sam()`; `optax.identity()` for none.
      descent: The optimiser behind it, such as `optim.momentum_sgd(...)`.
      augment: Function of images `[B, H, W, C]` in [0, 1] and keys `[B]`.
      mesh: Mesh with the axis `'data'`; its size divides B.
      group_size: Examples that share a perturbation, a divisor of B; see above.
      micro_batch_size: Examples in a piece, a divisor of the examples that share a perturbation; None for one piece.
      shard_state: Whether the state is cut over the devices, as `sharding.of_state(state, mesh, cut=True)` does it, or whole
        on each. Parameters are gathered for each evaluation; with groups, the whole state while they are computed.
      scan: Whether a call makes k steps, one for each row of `positions` `[k, B]`, in a `lax.scan`. The host then takes no
        part in them, which an accelerator with short steps needs; the result is the same.

    Returns:
      `step(state, data, positions, key) -> (state, metrics)`, jitted, with `state` donated: `state` is made by
      `training.create` with `optax.chain(minimiser, descent)`, and put on the mesh by `sharding.place`; `positions` are
      int32 `[B]`, cut over the devices; `key` is the key of the epoch; `metrics` are the scalars `loss` and `accuracy`,
      before the update, and of a sharpness-aware minimiser `gradient_norm`, `perturbation_norm`, `ascent_count` and
      `skipped_count`. With `scan`, `positions` are `[k, B]`, cut along B, and `metrics` arrays `[k]`.

    Raises:
      InputError: At the first step, a size does not divide.
    """
    minimiser, descent = optax.with_extra_args_support(minimiser), optax.with_extra_args_support(descent)

    whole, cut = sharding.replicated(mesh), sharding.batch_sharding(mesh)

    def gather(params):
        return jax.lax.with_sharding_constraint(params, whole) if shard_state else params

    def spread(examples):
        return jax.lax.with_sharding_constraint(examples, cut)

    def sharp_gradient(shared, images, labels, group_index):
        params, batch_stats, minimiser_state, key = shared
        objective = objective_lib.objective(
            module,
            batch_stats,
            images,
            labels,
            jax.random.fold_in(key, group_index),
            micro_batch_size=micro_batch_size,
            gather=gather if group_size is None else lambda params: params,
            spread=spread if group_size is None else groups.over_members,
        )
        evaluation, grads = objective.value_and_grad(params)
        updates, new_minimiser_state = minimiser.update(
            grads,
            minimiser_state,
            params,
            grad_fn=objective.grad,
            losses_fn=objective.losses,
            losses=evaluation.losses,
            group_index=group_index,
        )
        metrics = {'loss': jnp.mean(evaluation.losses), 'accuracy': evaluation.accuracy}
        # What is not finite must not stay in the running statistics for good.
        usable = numerics.all_finite(evaluation.batch_stats)
        batch_stats = jax.tree.map(lambda new, old: jnp.where(usable, new, old), evaluation.batch_stats, batch_stats)
        # Counters by what they grew, so that all that is averaged over groups is floating-point: one all-reduce.
        return updates, _growth(new_minimiser_state, minimiser_state), batch_stats, metrics

    def step(state, data, key, positions):
        objective_lib.check_sizes(
            len(positions), group_size=group_size, micro_batch_size=micro_batch_size, devices=mesh.size
        )
        labels = data.labels[positions]
        keys = rng.example_keys(key, data.ids[positions])
        images = augment(data.images[positions].astype(jnp.float32) / 255, keys)
        images = models.normalise(images, mean, std)
        minimiser_state, descent_state = state.opt_state
        dropout = jax.random.fold_in(rng.subkey(key, 'dropout'), state.step)
        shared = (state.params, state.batch_stats, minimiser_state, dropout)
        if group_size is None:
            found = sharp_gradient(shared, images, labels, 0)
        else:
            size = len(positions) // mesh.size if group_size == 'device' else group_size
            found = groups.over_groups(sharp_gradient, shared, images, labels, group_size=size, mesh=mesh)
        updates, growth, batch_stats, metrics = found
        minimiser_state = _grown(minimiser_state, growth)
        updates, descent_state = descent.update(updates, descent_state, state.params, value=metrics['loss'])
        new_state = state_lib.TrainState(
            step=optax.safe_increment(state.step),
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=(minimiser_state, descent_state),
        )
        new_state = jax.lax.with_sharding_constraint(new_state, sharding.of_state(new_state, mesh, cut=shard_state))
        for name in SHARPNESS:
            for _, value in optax.tree_utils.tree_get_all_with_path(minimiser_state, name):
                metrics[name] = value
        return new_state, metrics

    def one(state, data, positions, key):
        return step(state, data, key, positions)

    def several(state, data, positions, key):
        return jax.lax.scan(lambda state, row: step(state, data, key, row), state, positions)

    rows = sharding.rows_sharding(mesh) if scan else cut
    return jax.jit(several if scan else one, donate_argnums=0, in_shardings=(None, whole, rows, whole))


def _growth(new: Any, old: Any) -> Any:
    """A state whose counters are replaced by what they grew, and flags by 0 or 1, as float32."""

    def growth(n, o):
        if o.dtype == jnp.bool_:
            return n.astype(jnp.float32)
        return (n - o).astype(jnp.float32) if jnp.issubdtype(o.dtype, jnp.integer) else n

    return jax.tree.map(growth, new, old)


def _grown(old: Any, growth: Any) -> Any:
    """The state after a mean growth: a counter that grew in some of the groups has grown, and a flag holds for all."""

    def grown(o, g):
        if o.dtype == jnp.bool_:
            return g > 0.999
        if jnp.issubdtype(o.dtype, jnp.integer):
            return o + jnp.where(g > 0, jnp.maximum(jnp.round(g), 1), 0).astype(o.dtype)
        return g

    return jax.tree.map(grown, old, growth)

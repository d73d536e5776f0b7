"""One compiled training step.

Axes: `B` examples of the batch, `k` steps of a call.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from rfn_jax import data, models, optim
from rfn_jax.core import errors, numerics, rng, sharding
from rfn_jax.training import groups, objectives
from rfn_jax.training import state as state_lib

Metrics = dict[str, jax.Array]
Step = Callable[[state_lib.TrainState, data.Batch, jax.Array], tuple[state_lib.TrainState, Metrics]]


def train_step(
    module: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    tx: optax.GradientTransformation,
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    mesh: Mesh,
    *,
    group_size: int | str | None = None,
    micro_batch_size: int | None = None,
    shard_state: bool = False,
    scan: bool = False,
) -> Step:
    """Builds the compiled step of a network and an optimizer, or several steps in one dispatch.

    The loss is the mean cross-entropy of the batch (see `objective` for auxiliary heads and dropout). The optimizer receives
    `grad_fn`, the gradient of the same loss on the same augmented batch, so that a minimizer in it can evaluate it elsewhere
    (and what `optim.esam` needs beside it).

    How a batch is cut up decides what shares a perturbation, and what batch normalization sees:

    ==================  ==============================  =============================================  ==============
    `group_size`        perturbation                    batch statistics of a forward pass             all-reduces
    ==================  ==============================  =============================================  ==============
    None                one for the global batch        of the global batch, over all devices          two, and those
                                                                                                       of the statistics
    m (m-sharpness)     one for each m examples of the  of the m examples                              one, if a device
                        global batch                                                                   holds whole groups
    `'device'`          one for each device             of the examples on the device                  one
    ==================  ==============================  =============================================  ==============

    With groups, the minimizer runs once for each of them, from one state; gradients and running statistics are means over
    the groups, the state of the minimizer is merged by `optim.merged_state`, and what follows it runs once, on the mean. With
    `micro_batch_size` b the examples that share a perturbation pass in pieces of b, and batch normalization sees one piece at
    a time. In all modes running statistics move once a step, at the unperturbed parameters, by the mean over groups and
    pieces; the variance within a group is a little lower than that of the batch.

    All results but those of `'device'` are the same on any number of devices, up to the rounding of floats. A batch whose
    statistics are not finite leaves the running ones alone.

    Args:
      module: Flax module of the zoo.
      mean: Mean of each channel, for images in [0, 1].
      std: Standard deviation of each channel.
      tx: The optimizer, any chain of optax, such as `optax.chain(optim.rfn_sam(), optim.momentum_sgd(...))`. Groups need to
        know where its minimizer ends: an `optim.Optimizer`.
      augment: Function of images `[B, H, W, C]` in [0, 1] and keys `[B]`.
      mesh: Mesh with the axis `'data'`; its size divides B.
      group_size: Examples that share a perturbation, a divisor of B; see above.
      micro_batch_size: Examples in a piece, a divisor of the examples that share a perturbation, and of those that
        `optim.esam` keeps where they are more; None for one piece.
      shard_state: Whether the state is cut over the devices, as `sharding.of_state(state, mesh, cut=True)` does it, or whole
        on each. Parameters are gathered for each evaluation; with groups, the whole state while they are computed.
      scan: Whether a call makes k steps, in a `lax.scan` over a `Batch` with an axis k in front. The host then takes no part
        in them, which an accelerator with short steps needs; the result is the same.

    Returns:
      `step(state, batch, key) -> (state, metrics)`, jitted, with `state` donated: `state` is made by `training.create` with
      `tx`, and put on the mesh by `sharding.place`; `batch` is a `data.Batch` cut over the devices; `key` is the key of the
      epoch, with which the ids of the examples are folded for the augmentation; `metrics` are the scalars `loss` and
      `accuracy`, before the update, and those of `optim.diagnostics`. With `scan`, they are arrays `[k]`.

    Raises:
      InputError: `tx` cannot be run by groups; or, at the first step, its state cannot be merged, or a size does not divide.
    """
    if group_size is not None and not isinstance(tx, optim.Optimizer):
        raise errors.InputError(f'group_size {group_size!r} needs an optim.Optimizer, whose minimizer runs by groups')
    update = optax.with_extra_args_support(tx).update
    whole, cut = sharding.replicated(mesh), sharding.batch_sharding(mesh)

    def gather(params):
        return jax.lax.with_sharding_constraint(params, whole) if shard_state else params

    def spread(examples):
        return jax.lax.with_sharding_constraint(examples, cut)

    def evaluated(update, shared, images, labels, group_index):
        """What `update` makes of the gradient on some examples: updates, its state, running statistics and metrics."""
        params, batch_stats, opt_state, key = shared
        objective = objectives.objective(
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
        metrics = {'loss': jnp.mean(evaluation.losses), 'accuracy': evaluation.accuracy}
        updates, opt_state = update(
            grads,
            opt_state,
            params,
            grad_fn=objective.grad,
            losses_fn=objective.losses,
            losses=evaluation.losses,
            group_index=group_index,
            value=metrics['loss'],
        )
        # What is not finite must not stay in the running statistics for good.
        usable = numerics.all_finite(evaluation.batch_stats)
        batch_stats = jax.tree.map(lambda new, old: jnp.where(usable, new, old), evaluation.batch_stats, batch_stats)
        return updates, opt_state, batch_stats, metrics

    def by_groups(state, images, labels, key):
        size = len(labels) // mesh.size if group_size == 'device' else group_size
        minimizer_state = state.opt_state.minimizer

        def work(shared, images, labels, group_index):
            updates, new, *rest = evaluated(tx.minimizer.update, shared, images, labels, group_index)
            return updates, optim.state_change(new, minimizer_state), *rest

        shared = (state.params, state.batch_stats, minimizer_state, key)
        found = groups.over_groups(work, shared, images, labels, group_size=size, mesh=mesh)
        updates, change, batch_stats, metrics = found
        minimizer_state = optim.merged_state(minimizer_state, change)
        updates, descent_state = tx.descent.update(
            updates, state.opt_state.descent, state.params, value=metrics['loss']
        )
        return updates, optim.OptimizerState(minimizer_state, descent_state), batch_stats, metrics

    def step(state, batch, key):
        objectives.check_sizes(
            len(batch.labels), group_size=group_size, micro_batch_size=micro_batch_size, devices=mesh.size
        )
        images = augment(batch.images.astype(jnp.float32) / 255, rng.example_keys(key, batch.ids))
        images = models.normalize(images, mean, std)
        dropout = jax.random.fold_in(rng.subkey(key, 'dropout'), state.step)
        if group_size is None:
            shared = (state.params, state.batch_stats, state.opt_state, dropout)
            updates, opt_state, batch_stats, metrics = evaluated(update, shared, images, batch.labels, 0)
        else:
            updates, opt_state, batch_stats, metrics = by_groups(state, images, batch.labels, dropout)
        new_state = state_lib.TrainState(
            step=optax.safe_increment(state.step),
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        new_state = jax.lax.with_sharding_constraint(new_state, sharding.of_state(new_state, mesh, cut=shard_state))
        return new_state, {**metrics, **optim.diagnostics(opt_state)}

    def several(state, batch, key):
        return jax.lax.scan(lambda state, one: step(state, one, key), state, batch)

    rows = sharding.rows_sharding(mesh) if scan else cut
    return jax.jit(several if scan else step, donate_argnums=0, in_shardings=(None, rows, whole))

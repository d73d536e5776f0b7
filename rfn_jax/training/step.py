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
from rfn_jax.training import groups, objectives, together
from rfn_jax.training import state as state_lib

Metrics = dict[str, jax.Array]
Step = Callable[[state_lib.TrainState, data.Batch, jax.Array], tuple[state_lib.TrainState, Metrics]]
States = tuple[state_lib.TrainState, ...]
StepOfSeveral = Callable[[States, tuple[data.Batch, ...], tuple[jax.Array, ...]], tuple[States, tuple[Metrics, ...]]]


def train_step(
    module: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    tx: optax.GradientTransformation,
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    mesh: Mesh,
    *,
    mix: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]] | None = None,
    label_smoothing: float = 0.0,
    group_size: int | str | None = None,
    micro_batch_size: int | None = None,
    shard_state: bool = False,
    rematerialize: bool = False,
    scan: bool = False,
    several: bool = False,
) -> Step | StepOfSeveral:
    """Builds the compiled step of a network and an optimizer, or several steps in one dispatch.

    The loss is the mean cross-entropy of the batch (see `objective` for auxiliary heads and dropout), with mixed and smoothed
    labels if those are used. The optimizer receives
    `grad_fn`, the gradient of the same loss on the same augmented batch, so that its minimizer can evaluate the gradient at
    other parameters (it also receives what `optim.esam` needs in addition).

    How a batch is divided determines which examples share a perturbation, and what batch normalization sees:

    ==================  ==============================  =============================================  ==============
    `group_size`        perturbation                    batch statistics of a forward pass             all-reduces
    ==================  ==============================  =============================================  ==============
    None                one for the global batch        of the global batch, over all devices          two, plus those
                                                                                                       of the statistics
    m (m-sharpness)     one for every m examples of     of the m examples                              one, if a device
                        the global batch                                                               holds whole groups
    `'device'`          one for each device             of the examples on the device                  one
    ==================  ==============================  =============================================  ==============

    With groups, the minimizer runs once for each group, always from the same state; gradients and running statistics are
    means over the groups, the state of the minimizer is merged by `optim.merged_state`, and whatever follows the minimizer
    runs once, on the mean. With `micro_batch_size` b, the examples that share a perturbation pass through the network b at a
    time, and batch normalization sees one micro-batch at a time. In all modes the running statistics are updated once per
    step, at the unperturbed parameters, by the mean over groups and micro-batches; the variance within a group is a little
    lower than that of the batch.

    Results do not depend on the number of devices, up to floating-point rounding, except with `'device'`. A batch whose
    statistics are not finite does not change the running statistics.

    Args:
      module: Flax module of the zoo.
      mean: Mean of each channel, for images in [0, 1].
      std: Standard deviation of each channel.
      tx: The optimizer, any chain of optax, such as `optax.chain(optim.rfn_sam(), optim.momentum_sgd(...))`. With groups it
        must be an `optim.Optimizer`, which tells where the minimizer ends.
      augment: Function of images `[B, H, W, C]` in [0, 1] and keys `[B]`.
      mesh: Mesh with the axis `'data'`; its size divides B.
      mix: Function of the augmented images, the labels int32 `[B]` and keys `[B]` that returns the mixed images and their
        labels, probabilities `[B, K]`; such as `data.Mixing`. It sees the global batch, before it is divided into groups.
      label_smoothing: See `losses.cross_entropy`.
      group_size: Number of examples that share a perturbation, a divisor of B; see above.
      micro_batch_size: Number of examples in a micro-batch. It must divide the number of examples that share a perturbation,
        and also the number that `optim.esam` keeps unless that is at most `micro_batch_size`. None for no micro-batches.
      shard_state: Whether the state is sharded over the devices, as by `sharding.of_state(state, mesh, shard=True)`, or
        replicated. Parameters are gathered for each evaluation; with groups, the whole state is gathered while they are
        computed.
      rematerialize: Whether the backward pass computes again what is cheap, to save memory; see `objective`.
      scan: Whether a call makes k steps, in a `lax.scan` over a `Batch` with a leading axis k. The host is then not involved
        between steps, which matters on an accelerator with short steps; the result is the same.
      several: Whether a call trains several networks, each as if alone up to rounding: see `together.several`.

    Returns:
      `step(state, batch, key) -> (state, metrics)`, jitted, with `state` donated: `state` is created by `training.create`
      with `tx` and put on the mesh by `sharding.place`; `batch` is a `data.Batch` sharded over the devices; `key` is the key
      of the epoch, into which the ids of the examples are folded for the augmentation; `metrics` are the scalars `loss` and
      `accuracy`, before the update, and those of `optim.diagnostics`. With mixed labels, `accuracy` is the fraction of the
      examples whose predicted class has the largest weight in their label. With `scan`, the metrics are arrays `[k]`. With
      `several`, each argument and each result is a tuple, with one entry for each network.

    Raises:
      InputError: `tx` cannot run per group; or, at the first step, its state cannot be merged, or a size is not a divisor
        where it must be one.
    """
    if group_size is not None and not isinstance(tx, optim.Optimizer):
        raise errors.InputError(f'group_size {group_size!r} needs an optim.Optimizer, whose minimizer runs per group')
    update = optax.with_extra_args_support(tx).update
    replicated, sharded = sharding.replicated(mesh), sharding.batch_sharding(mesh)

    def gather(params):
        return jax.lax.with_sharding_constraint(params, replicated) if shard_state else params

    def place(examples):
        return jax.lax.with_sharding_constraint(examples, sharded)

    def place_state(state):
        return jax.lax.with_sharding_constraint(state, sharding.of_state(state, mesh, shard=shard_state))

    def evaluate(update, shared, images, labels, group_index):
        """Applies `update` to the gradient on some examples; returns updates, its state, running statistics and metrics."""
        params, batch_stats, opt_state, key = shared
        objective = objectives.objective(
            module,
            batch_stats,
            images,
            labels,
            jax.random.fold_in(key, group_index),
            label_smoothing=label_smoothing,
            micro_batch_size=micro_batch_size,
            rematerialize=rematerialize,
            gather=gather if group_size is None else lambda params: params,
            place=place if group_size is None else groups.shard_over_members,
        )
        result, grads = objective.value_and_grad(params)
        metrics = {'loss': jnp.mean(result.losses), 'accuracy': result.accuracy}
        updates, opt_state = update(
            grads,
            opt_state,
            params,
            grad_fn=objective.grad,
            losses_fn=objective.losses,
            losses=result.losses,
            group_index=group_index,
            value=metrics['loss'],
        )
        # Values that are not finite would remain in the running statistics forever.
        usable = numerics.all_finite(result.batch_stats)
        batch_stats = jax.tree.map(lambda new, old: jnp.where(usable, new, old), result.batch_stats, batch_stats)
        return updates, opt_state, batch_stats, metrics

    def evaluate_by_groups(state, images, labels, key):
        size = len(labels) // mesh.size if group_size == 'device' else group_size
        minimizer_state = state.opt_state.minimizer

        def work(shared, images, labels, group_index):
            updates, new, *rest = evaluate(tx.minimizer.update, shared, images, labels, group_index)
            return updates, optim.state_change(new, minimizer_state), *rest

        shared = (state.params, state.batch_stats, minimizer_state, key)
        means = groups.mean_over_groups(work, shared, images, labels, group_size=size, mesh=mesh)
        updates, change, batch_stats, metrics = means
        minimizer_state = optim.merged_state(minimizer_state, change)
        updates, descent_state = tx.descent.update(
            updates, state.opt_state.descent, state.params, value=metrics['loss']
        )
        return updates, optim.OptimizerState(minimizer_state, descent_state), batch_stats, metrics

    def step(state, batch, key):
        objectives.check_sizes(
            len(batch.labels), group_size=group_size, micro_batch_size=micro_batch_size, devices=mesh.size
        )
        images, labels = batch.images.astype(jnp.float32) / 255, batch.labels
        images = augment(images, rng.example_keys(key, batch.ids))
        if mix is not None:
            images, labels = mix(images, labels, rng.example_keys(rng.subkey(key, 'mix'), batch.ids))
        images = models.normalize(images, mean, std)
        dropout = jax.random.fold_in(rng.subkey(key, 'dropout'), state.step)
        if group_size is None:
            shared = (state.params, state.batch_stats, state.opt_state, dropout)
            updates, opt_state, batch_stats, metrics = evaluate(update, shared, images, labels, 0)
        else:
            updates, opt_state, batch_stats, metrics = evaluate_by_groups(state, images, labels, dropout)
        new_state = state_lib.TrainState(
            step=optax.safe_increment(state.step),
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return place_state(new_state), {**metrics, **optim.diagnostics(opt_state)}

    def scan_steps(state, batch, key):
        return jax.lax.scan(lambda state, one: step(state, one, key), state, batch)

    placed = sharding.rows_sharding(mesh) if scan else sharded
    work = scan_steps if scan else step
    work = together.several(work, place_state) if several else work
    return jax.jit(work, donate_argnums=0, in_shardings=(None, placed, replicated))

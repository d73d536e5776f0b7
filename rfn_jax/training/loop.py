"""The training loop: epochs, checkpoints, metrics, and exact resumption."""

import functools
import math
import os
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from rfn_jax import data, models
from rfn_jax.core import console as console_lib
from rfn_jax.core import errors, numerics, rng, sharding
from rfn_jax.training import checkpoints, evaluation, metrics, objective, recipe, state, step


def fit(
    classifier: models.Classifier,
    train: data.ImageDataset,
    validation: data.ImageDataset,
    plan: recipe.Recipe,
    *,
    seed: int,
    directory: os.PathLike | str,
    keep_all: bool,
    batch_size: int,
    name: str,
    console: console_lib.Console,
    mesh: Mesh,
) -> None:
    """Trains a classifier and leaves its checkpoints and metrics in a directory.

    After each epoch it saves `checkpoints/<epoch>` and appends to `metrics.jsonl`: loss and accuracy on the (augmented)
    training batches, norm of the parameters, natural accuracy on the validation images, learning rate and seconds; of a
    sharpness-aware minimiser also the mean norms of its gradient and perturbation, and its counters. A run
    that was stopped, at any point, goes on from the newest readable checkpoint and ends with the same weights, bit for
    bit where the platform and the number of devices are the same and XLA is deterministic, as on the CPU. A checkpoint
    that cannot be read is reported and moved aside, and one that is missing is made again from the one before it. If all
    are there, nothing is done.

    Args:
      classifier: The classifier with its initial variables.
      train: Training examples.
      validation: Examples for the natural accuracy in the metrics.
      plan: Hyper-parameters.
      seed: Seed of the order of the examples and of the augmentation.
      directory: Where to leave the results.
      keep_all: Whether to keep the checkpoints of all epochs, or the latest two.
      batch_size: Examples in a batch of the validation.
      name: What to call the run in messages.
      console: Where to tell the progress.
      mesh: Mesh with the axis `'data'`; its size must divide the batch size.

    Raises:
      InputError: The batch size does not fit the examples or the devices, or a checkpoint is of another model.
      RunError: The loss or the parameters are not finite, or a checkpoint cannot be saved.
    """
    objective.check_sizes(
        plan.batch_size, group_size=plan.group_size, micro_batch_size=plan.micro_batch_size, devices=mesh.size
    )
    steps_per_epoch = len(data.epoch_order(len(train), plan.batch_size, seed=seed, epoch=0))
    directory = pathlib.Path(directory)
    with checkpoints.CheckpointStore(directory / 'checkpoints', keep_all=keep_all) as store:
        there = store.epochs()
        missing = needed_epochs(plan, keep_all) - set(there)
        if not missing:
            return
        per_call = _steps_per_call(plan, steps_per_epoch, mesh)
        tx, train_step = _compiled(
            classifier.module, classifier.mean, classifier.std, plan, steps_per_epoch, mesh, scan=per_call > 1
        )
        earlier = [epoch for epoch in there if epoch < min(missing)]
        done, current = _resume(store, earlier, state.create(classifier, tx), console)
        there = store.epochs()  # without those moved aside
        log = metrics.MetricsLog(directory / 'metrics.jsonl', keep_epochs=done)
        current = sharding.place(current, sharding.of_state(current, mesh, cut=plan.shard_parameters))
        resident = sharding.replicate(step.DeviceData(train.images, train.labels, train.ids.astype(np.uint32)), mesh)
        skipped = _skipped(current.opt_state)
        with console.task(name, plan.epochs, done=done) as advance:
            for epoch in range(done + 1, plan.epochs + 1):
                start = time.monotonic()
                key = jax.device_put(rng.key_for(seed, 'augment', epoch), sharding.replicated(mesh))
                history = []
                for positions in _calls(
                    data.epoch_order(len(train), plan.batch_size, seed=seed, epoch=epoch), per_call, mesh
                ):
                    current, values = train_step(current, resident, positions, key)
                    history.append(values)
                history, norm = jax.device_get((history, _norm(current.params)))
                history = {key: np.concatenate([np.atleast_1d(v[key]) for v in history]) for key in history[0]}
                _check_finite([*history['loss'], norm], name, epoch, plan)
                values = {key: _mean_of_known(values) for key, values in history.items()}
                for counter in values.keys() & {'ascent_count', 'skipped_count'}:
                    values[counter] = int(history[counter][-1])
                values['parameter_norm'] = float(norm)
                latest = classifier.replace(variables=current.variables)
                values['validation_accuracy'] = evaluation.accuracy(
                    latest, validation, batch_size=batch_size, mesh=mesh
                )
                values['learning_rate'] = float(
                    plan.schedule(steps_per_epoch)(jnp.int32((epoch - 1) * steps_per_epoch))
                )
                if epoch not in there:
                    store.save(epoch, current)
                log.write(epoch, **values, seconds=round(time.monotonic() - start, 3))
                advance(**{key: value for key, value in values.items() if key not in step.SHARPNESS})
                if values.get('skipped_count', 0) > skipped:
                    skipped = values['skipped_count']
                    console.info(
                        f'{name}: {skipped} updates up to epoch {epoch} without perturbation, since a gradient was not finite'
                    )


def _steps_per_call(plan: recipe.Recipe, steps_per_epoch: int, mesh: Mesh) -> int:
    """How many steps the host starts together."""
    if plan.steps_per_call is not None:
        return min(plan.steps_per_call, steps_per_epoch)
    return 1 if mesh.devices.flat[0].platform == 'cpu' else steps_per_epoch


def _calls(order: jax.Array, per_call: int, mesh: Mesh) -> list[jax.Array]:
    """The positions of an epoch on the devices, those of each call in one array: `[B]`, or `[k, B]` if it makes k steps.

    All are put there before the first step, so that none waits for the host.
    """
    rows = np.asarray(order)
    if per_call == 1:
        return jax.device_put(list(rows), sharding.batch_sharding(mesh))
    parts = [rows[start : start + per_call] for start in range(0, len(rows), per_call)]
    return jax.device_put(parts, sharding.rows_sharding(mesh))


@functools.lru_cache
def _compiled(module, mean, std, plan: recipe.Recipe, steps_per_epoch: int, mesh: Mesh, *, scan: bool):
    """The optimiser and the step, made once for all seeds of a network."""
    minimiser, descent = plan.minimise(steps_per_epoch), plan.descent(steps_per_epoch)
    tx = optax.chain(minimiser, descent)
    return tx, step.train_step(
        module,
        mean,
        std,
        minimiser,
        descent,
        plan.augmentation(),
        mesh,
        group_size=plan.group_size,
        micro_batch_size=plan.micro_batch_size,
        shard_state=plan.shard_parameters,
        scan=scan,
    )


def needed_epochs(plan: recipe.Recipe, keep_all: bool) -> set[int]:
    """The epochs whose checkpoints a finished run has at least."""
    return set(range(1, plan.epochs + 1)) if keep_all else {plan.epochs}


def _resume(
    store: checkpoints.CheckpointStore, epochs: list[int], fresh: state.TrainState, console: console_lib.Console
):
    """The number of epochs done and the state after them: of the newest readable one of `epochs`, else 0 and `fresh`."""
    for epoch in reversed(epochs):
        try:
            return epoch, store.restore(epoch, fresh)
        except errors.RunError as error:
            console.info(f'{error}; moved to {store.set_aside(epoch)}, going on from the epoch before')
    return 0, fresh


def _skipped(opt_state: optax.OptState) -> int:
    """How many updates had no perturbation so far."""
    found = optax.tree_utils.tree_get_all_with_path(opt_state, 'skipped_count')
    return max((int(count) for _, count in found), default=0)


def _mean_of_known(values: np.ndarray) -> float | None:
    """The mean of the values that are finite, None if none is."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    return float(np.mean(known)) if known.size else None


_norm = jax.jit(numerics.tree_norm)


def _check_finite(values: list[np.ndarray], name: str, epoch: int, plan: recipe.Recipe) -> None:
    """Raises RunError if a loss of the epoch, or the norm of the parameters after it, is not finite."""
    for index, value in enumerate(values):
        if not math.isfinite(value):
            what = 'norm of the parameters' if index == len(values) - 1 else 'loss'
            raise errors.RunError(
                f'{name}: the {what} is {value} at step {min(index + 1, len(values) - 1)} of epoch {epoch}; the checkpoints '
                f'of earlier epochs are kept. Try a learning rate below {plan.learning_rate} or other options of the '
                f'minimiser {dict(plan.minimiser)}'
            )

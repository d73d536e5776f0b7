"""The training loop: epochs, checkpoints, metrics, and exact resumption."""

import os
import time

import optax

from rfn_jax import data, models, optim
from rfn_jax.core import console as console_lib
from rfn_jax.core import io, sharding
from rfn_jax.training import checkpoints, evaluation, metrics, programs, resume
from rfn_jax.training import epoch as epoch_lib
from rfn_jax.training import state as state_lib
from rfn_jax.training.recipe import Recipe


def fit(
    classifier: models.Classifier,
    loader: data.Loader,
    validation: data.ImageDataset,
    program: programs.Program,
    *,
    directory: os.PathLike | str,
    keep_all: bool,
    batch_size: int,
    name: str,
    console: console_lib.Console,
) -> None:
    """Trains a classifier and leaves its checkpoints and metrics in a directory.

    After each epoch it saves `checkpoints/<epoch>` and appends to `metrics.jsonl`: loss and accuracy on the (augmented)
    training batches, norm of the parameters, natural accuracy on the validation images, learning rate and seconds; of a
    sharpness-aware minimizer also the mean norms of its gradient and perturbation, and its counters. A run that was stopped,
    at any point, goes on from the newest readable checkpoint that holds the state of the optimizer and ends with the same
    weights, bit for bit where the platform and the number of devices are the same and XLA is deterministic, as on the CPU. A
    checkpoint that cannot be read is reported and moved aside; one that is missing is made again, from the newest state
    before it or from the start, and training stops after the last one that is missing. If all are there, nothing is done.

    Args:
      classifier: The classifier with its initial variables.
      loader: The batches of the training set, on the devices of the program.
      validation: Examples for the natural accuracy in the metrics.
      program: The compiled step, and the recipe that it was made by; seeds share one.
      directory: Where to leave the results.
      keep_all: Whether to keep the checkpoints of all epochs, or the latest two.
      batch_size: Examples in a batch of the validation.
      name: What to call the run in messages.
      console: Where to tell the progress.

    Raises:
      InputError: A checkpoint is of another model, or there are several hosts.
      RunError: The loss or the parameters are not finite, or a checkpoint cannot be saved.
    """
    sharding.check_one_host()
    recipe, mesh = program.recipe, program.mesh
    directory = io.absolute(directory)
    needed = needed_epochs(recipe, keep_all)
    with checkpoints.CheckpointStore(directory / 'checkpoints', keep_all=keep_all) as store:
        missing = needed - set(store.epochs())
        if not missing:
            return
        io.check_writable(directory / 'metrics.jsonl')  # now, and not after the first epoch
        last = max(missing)
        fresh = state_lib.create(classifier, program.tx)
        done, state = resume.newest_state(store, fresh, console, before=min(missing))
        there = store.epochs()  # without those moved aside
        log = metrics.MetricsLog(directory / 'metrics.jsonl', keep={*range(1, done + 1), *there})
        state = sharding.place(state, sharding.of_state(state, mesh, cut=recipe.shard_parameters))
        skipped = _skipped(state.opt_state)
        with console.task(name, last, done=done) as advance:
            for epoch in range(done + 1, last + 1):
                start = time.monotonic()
                state, figures = epoch_lib.run(program, state, loader, epoch, name=name)
                latest = classifier.replace(variables=state.variables)
                figures['validation_accuracy'] = evaluation.accuracy(
                    latest, validation, batch_size=batch_size, mesh=mesh
                )
                # Before the checkpoint: an epoch that has one is not trained again, and its line would be lost.
                log.write(epoch, **figures, seconds=round(time.monotonic() - start, 3))
                if epoch not in there:
                    store.wait()
                    resume.forget_states(store, needed)
                    store.save(epoch, state)
                advance(**epoch_lib.shown(figures))
                if figures.get('skipped_count', 0) > skipped:
                    skipped = figures['skipped_count']
                    console.info(
                        f'{name}: {skipped} updates up to epoch {epoch} without perturbation, since a gradient was not finite'
                    )
        store.wait()
        resume.forget_states(store, needed)


def needed_epochs(recipe: Recipe, keep_all: bool) -> set[int]:
    """The epochs whose checkpoints a finished run has at least."""
    return set(range(1, recipe.epochs + 1)) if keep_all else {recipe.epochs}


def _skipped(opt_state: optax.OptState) -> int:
    """How many updates had no perturbation so far."""
    return int(optim.diagnostics(opt_state).get('skipped_count', 0))

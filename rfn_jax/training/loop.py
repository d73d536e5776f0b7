"""The training loop: epochs, checkpoints, metrics, and exact resumption."""

import os
import time
from collections.abc import Mapping

import optax

from rfn_jax import data, models, optim
from rfn_jax.core import console as console_lib
from rfn_jax.core import errors, io, processes, sharding
from rfn_jax.training import checkpoints, evaluation, metrics, programs, resume
from rfn_jax.training import epoch as epoch_lib
from rfn_jax.training import state as state_lib
from rfn_jax.training.recipe import Recipe


def fit(
    classifier: models.Classifier,
    loader: data.Loader,
    validation: data.Source,
    program: programs.Program,
    *,
    directory: os.PathLike[str] | str,
    keep_all: bool,
    batch_size: int,
    name: str,
    console: console_lib.Console,
) -> None:
    """Trains a classifier and leaves its checkpoints and metrics in a directory.

    After each epoch it saves `checkpoints/<epoch>` and appends to `metrics.jsonl`: the loss and accuracy on the (augmented)
    training batches, the norm of the parameters, the natural accuracy on the validation images, the learning rate and the
    seconds; for a sharpness-aware minimizer also the mean norms of its gradient and perturbation, and its counters. The loss
    includes label smoothing; with mixup or cutmix, the accuracy counts the class that has the largest weight in the label.

    A run that was stopped, at any point, resumes from the newest readable checkpoint that holds the state of the optimizer
    (after SIGTERM, that of the last step) and ends with the same weights, bit for bit if the platform and the number of
    devices are the same and XLA is deterministic, as it is on the CPU. A checkpoint that cannot be read is reported and
    moved aside. A missing checkpoint is made again, from the newest earlier state or from the start, and training stops
    after the last missing one. Such a repair saves nothing until it reaches the first missing epoch; if it is stopped before
    that, it starts again. If no checkpoint is missing, nothing is done.

    With several processes, all of them train, and the first one reads and writes the directory.

    Args:
      classifier: The classifier with its initial variables.
      loader: The batches of the training set, on the devices of the program.
      validation: Examples for the natural accuracy in the metrics.
      program: The compiled step and the recipe that it was made from; all seeds share one program.
      directory: Where to leave the results.
      keep_all: Whether to keep the checkpoints of all epochs, or only the latest two.
      batch_size: Number of validation examples in a batch.
      name: What to call the run in messages.
      console: Where to report the progress.

    Raises:
      InputError: A checkpoint belongs to another model.
      RunError: The loss or the parameters are not finite, or a checkpoint cannot be saved.
      PreemptedError: The run was asked to stop; the state after the last step is saved in `interrupted`.
    """
    recipe, mesh = program.recipe, program.mesh
    directory = io.absolute(directory)
    needed = needed_epochs(recipe, keep_all)
    interrupted = resume.InterruptedEpoch(directory / 'interrupted')
    with checkpoints.CheckpointStore(directory / 'checkpoints', keep_all=keep_all) as store:
        missing = processes.on_first(lambda: sorted(needed - set(store.epochs())))()
        if not missing:
            return
        processes.on_first(io.check_writable)(directory / 'metrics.jsonl')  # now rather than after the first epoch
        last = max(missing)
        start = resume.start(store, interrupted, state_lib.create(classifier, program.tx), console, before=min(missing))
        existing = processes.on_first(store.epochs)()  # without those moved aside
        log = metrics.MetricsLog(directory / 'metrics.jsonl', keep={*range(1, start.done + 1), *existing})
        state = sharding.place(start.state, sharding.of_state(start.state, mesh, shard=bool(recipe.shard_parameters)))
        skipped, progress = _skipped_count(start.state.opt_state), start.progress

        @processes.on_first
        def finish(
            epoch: int, state: state_lib.TrainState, figures: Mapping[str, float | None], seconds: float
        ) -> None:
            # Before the checkpoint: an epoch that has one is not trained again, so its line would be lost.
            log.write(epoch, **figures, seconds=round(seconds, 3))
            if epoch not in existing:
                store.wait()
                resume.delete_unneeded_states(store, needed)
                store.save(epoch, state)

        with console.task(name, last, done=start.done) as advance:
            for epoch in range(start.done + 1, last + 1):
                began = time.monotonic()
                try:
                    state, figures = epoch_lib.run(program, state, loader, epoch, name=name, progress=progress)
                except epoch_lib.EpochStoppedError as stopped:
                    local = sharding.to_local(stopped.state, mesh)
                    processes.on_first(_interrupt)(store, interrupted, epoch, local, stopped.progress)
                    raise errors.PreemptedError(
                        f'{name}: stopped by SIGTERM after step {stopped.progress.steps} of epoch {epoch}; run the same '
                        'command again to continue'
                    ) from None
                progress = epoch_lib.NOT_STARTED
                local = sharding.to_local(state, mesh)
                latest = classifier.replace(variables=local.variables)
                figures['validation_accuracy'] = evaluation.accuracy(
                    latest, validation, batch_size=batch_size, mesh=mesh
                )
                finish(epoch, local, figures, time.monotonic() - began)
                advance(**epoch_lib.shorten(figures))
                if figures.get('skipped_count', 0) > skipped:
                    skipped = figures['skipped_count']
                    console.info(
                        f'{name}: {skipped} updates up to epoch {epoch} had no perturbation because a gradient was not finite'
                    )

        @processes.on_first
        def clean_up() -> None:
            store.wait()
            resume.delete_unneeded_states(store, needed)
            interrupted.delete()

        clean_up()


def _interrupt(
    store: checkpoints.CheckpointStore,
    interrupted: resume.InterruptedEpoch,
    epoch: int,
    state: state_lib.TrainState,
    progress: epoch_lib.Progress,
) -> None:
    """Saves the state of an epoch that was stopped, unless no step of it was done: then the last checkpoint is that state."""
    store.wait()
    if progress.steps:
        interrupted.save(epoch, state, progress)


def needed_epochs(recipe: Recipe, keep_all: bool) -> set[int]:
    """Returns the epochs for which every finished run has a checkpoint."""
    return set(range(1, recipe.epochs + 1)) if keep_all else {recipe.epochs}


def _skipped_count(opt_state: optax.OptState) -> int:
    """Returns how many updates have had no perturbation so far."""
    return int(optim.diagnostics(opt_state).get('skipped_count', 0))

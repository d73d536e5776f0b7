"""The training loop: runs that differ only in their seed, epoch by epoch, each with its checkpoints and metrics."""

import contextlib
import time
from collections.abc import Sequence

from rfn_jax import data
from rfn_jax.core import console as console_lib
from rfn_jax.core import errors, sharding
from rfn_jax.training import epoch as epoch_lib
from rfn_jax.training import evaluation, programs
from rfn_jax.training import runs as runs_lib


def fit(
    runs: Sequence[runs_lib.Run],
    validation: data.Source,
    program: programs.Program,
    *,
    keep_all: bool,
    batch_size: int,
    console: console_lib.Console,
) -> None:
    """Trains classifiers that differ only in their seed, and leaves the checkpoints and metrics of each in its directory.

    After each epoch it saves `checkpoints/<epoch>` and appends to `metrics.jsonl`: the loss and accuracy on the (augmented)
    training batches, the norm of the parameters, the natural accuracy on the validation images, the learning rate and the
    seconds; for a sharpness-aware minimizer also the mean norms of its gradient and perturbation, and its counters. The loss
    includes label smoothing; with mixup or cutmix, the accuracy counts the class that has the largest weight in the label.

    Several runs share each call of the program, and each ends with the weights of a run of its own up to rounding (which
    training may amplify). The seconds in their metrics are those of the epoch of all of them. Runs that are behind, because
    they were killed or damaged, go first until they meet the others.

    A run that was stopped, at any point, resumes from the newest readable checkpoint that holds the state of the optimizer
    (after SIGTERM, that of the last step) and ends with the same weights, bit for bit if the platform, the number of devices
    and the runs beside it are the same and XLA is deterministic, as it is on the CPU. A checkpoint that cannot be read is
    reported and moved aside. A missing checkpoint is made again, from the newest earlier state or from the start, and
    training stops after the last missing one. Such a repair saves nothing until it reaches the first missing epoch; if it is
    stopped before that, it starts again. If no checkpoint is missing, nothing is done.

    With several processes, all of them train, and the first one reads and writes the directories.

    Args:
      runs: The runs, which are trained at the same time and whose states are all on the devices.
      validation: Examples for the natural accuracy in the metrics.
      program: The compiled step and the recipe that it was made from; all seeds share one program.
      keep_all: Whether to keep the checkpoints of all epochs, or only the latest two.
      batch_size: Number of validation examples in a batch.
      console: Where to report the progress.

    Raises:
      InputError: A checkpoint belongs to another model.
      RunError: The loss or the parameters are not finite, or a checkpoint cannot be saved.
      PreemptedError: The runs were asked to stop; the state of each after the last step is saved in `interrupted`.
    """
    with contextlib.ExitStack() as stores:
        resumed = (runs_lib.resumed(run, program, console, keep_all=keep_all) for run in runs)
        unfinished = [run for run in resumed if run is not None]
        for run in unfinished:
            stores.enter_context(run.store)
        if not unfinished:
            return
        total, done = sum(run.last for run in unfinished), sum(run.done for run in unfinished)
        with console.task(_title(unfinished), total, done=done) as advance:
            while unfinished:
                behind = min(run.position for run in unfinished)
                together = [run for run in unfinished if run.position == behind]
                for figures in _train_epoch(together, validation, program, batch_size):
                    advance(**epoch_lib.shorten(figures))
                unfinished = [run for run in unfinished if run.done < run.last]


def _train_epoch(
    runs: Sequence[runs_lib.OpenRun], validation: data.Source, program: programs.Program, batch_size: int
) -> list[dict[str, float | None]]:
    """Trains runs that are at the same position to the end of their epoch, and saves it; returns the figures of each."""
    began, epoch, mesh = time.monotonic(), runs[0].done + 1, program.mesh
    try:
        figures = epoch_lib.run(program, [run.trainee for run in runs], epoch)
    except epoch_lib.EpochStoppedError as stopped:
        for run in runs:
            run.save_interrupted(sharding.to_local(run.trainee.state, mesh))
        raise errors.PreemptedError(
            f'{_title(runs)}: stopped by SIGTERM after step {stopped.steps} of epoch {epoch}; run the same command again to '
            'continue'
        ) from None
    states = [sharding.to_local(run.trainee.state, mesh) for run in runs]
    latest = [run.classifier.replace(variables=state.variables) for run, state in zip(runs, states, strict=True)]
    accuracies = evaluation.accuracies(latest, validation, batch_size=batch_size, mesh=mesh)
    seconds = round(time.monotonic() - began, 3)
    for run, state, found, accuracy in zip(runs, states, figures, accuracies, strict=True):
        found.update(validation_accuracy=accuracy)
        run.finish_epoch(state, {**found, 'seconds': seconds})
    return figures


def _title(runs: Sequence[runs_lib.OpenRun]) -> str:
    """What to call runs in messages."""
    first = runs[0].trainee.name
    return first if len(runs) == 1 else f'{first} and {len(runs) - 1} more'

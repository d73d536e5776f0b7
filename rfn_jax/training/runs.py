"""The runs that `fit` trains: one network each, where it resumes, and what is saved of it in its directory."""

import dataclasses
import os
from collections.abc import Mapping

from rfn_jax import data, models, optim
from rfn_jax.core import console as console_lib
from rfn_jax.core import io, processes, sharding
from rfn_jax.training import checkpoints, metrics, programs, resume
from rfn_jax.training import epoch as epoch_lib
from rfn_jax.training import state as state_lib
from rfn_jax.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Run:
    """A network to train, for `fit`.

    Attributes:
      classifier: The classifier with its initial variables.
      loader: The batches of the training set, on the devices of the program.
      directory: Where to leave the results.
      name: What to call the run in messages.
    """

    classifier: models.Classifier
    loader: data.Loader
    directory: os.PathLike[str] | str
    name: str


@dataclasses.dataclass
class OpenRun:
    """A run that has been resumed and is not finished; with several processes, the first one reads and writes.

    Attributes:
      classifier: See `Run`.
      trainee: The state of the network and how far its epoch is.
      done: Number of finished epochs.
      last: The last epoch to train.
      needed: The epochs whose checkpoints a finished run has.
      existing: The epochs that have checkpoints already, which are not saved again.
      skipped: Number of updates that have had no perturbation.
      store: The checkpoints.
      interrupted: The state of an epoch that was stopped.
      log: The metrics.
      console: Where to report the progress.
    """

    classifier: models.Classifier
    trainee: epoch_lib.Trainee
    done: int
    last: int
    needed: set[int]
    existing: list[int]
    skipped: int
    store: checkpoints.CheckpointStore
    interrupted: resume.InterruptedEpoch
    log: metrics.MetricsLog
    console: console_lib.Console

    @property
    def position(self) -> tuple[int, int]:
        """Number of finished epochs, and of steps of the next one: runs at the same position are trained together."""
        return self.done, self.trainee.progress.steps

    def finish_epoch(self, state: state_lib.TrainState, figures: Mapping[str, float | None]) -> None:
        """Saves an epoch; after the last one, waits until it is on disk and deletes what is no longer needed.

        Args:
          state: The state of `trainee`, on the devices of this process.
          figures: The line of the epoch in `metrics.jsonl`.

        Raises:
          RunError: The epoch, or an earlier one that was still being written, cannot be saved.
        """
        self.done += 1
        processes.on_first(self._save)(state, figures)
        if figures.get('skipped_count', 0) > self.skipped:
            self.skipped = figures['skipped_count']
            self.console.info(
                f'{self.trainee.name}: {self.skipped} updates up to epoch {self.done} had no perturbation because a gradient '
                'was not finite'
            )
        if self.done == self.last:
            processes.on_first(self._clean_up)()

    def save_interrupted(self, state: state_lib.TrainState) -> None:
        """Saves the state of an epoch that was stopped, unless no step was done: then the last checkpoint is that state.

        Args:
          state: The state of `trainee`, on the devices of this process.

        Raises:
          RunError: It, or an earlier epoch that was still being written, cannot be saved.
        """
        processes.on_first(self._interrupt)(state)

    def _save(self, state: state_lib.TrainState, figures: Mapping[str, float | None]) -> None:
        # Before the checkpoint: an epoch that has one is not trained again, so its line would be lost.
        self.log.write(self.done, **figures)
        if self.done not in self.existing:
            self.store.wait()
            resume.delete_unneeded_states(self.store, self.needed)
            self.store.save(self.done, state)

    def _clean_up(self) -> None:
        self.store.wait()
        resume.delete_unneeded_states(self.store, self.needed)
        self.interrupted.delete()

    def _interrupt(self, state: state_lib.TrainState) -> None:
        self.store.wait()
        if self.trainee.progress.steps:
            self.interrupted.save(self.done + 1, state, self.trainee.progress)


def resumed(run: Run, program: programs.Program, console: console_lib.Console, *, keep_all: bool) -> OpenRun | None:
    """Resumes a run: its state is then on the devices. Leave the context of its `store` at the end.

    Args:
      run: The run.
      program: What it is trained with.
      console: Where to report damage and progress.
      keep_all: See `fit`.

    Returns:
      The run, or None if no checkpoint is missing; nothing is done then.

    Raises:
      InputError: A checkpoint belongs to another model.
      RunError: The directory cannot be read or written.
    """
    recipe, directory = program.recipe, io.absolute(run.directory)
    needed = needed_epochs(recipe, keep_all)
    interrupted = resume.InterruptedEpoch(directory / 'interrupted')
    store = checkpoints.CheckpointStore(directory / 'checkpoints', keep_all=keep_all)
    missing = processes.on_first(lambda: sorted(needed - set(store.epochs())))()
    if not missing:
        return None
    processes.on_first(io.check_writable)(directory / 'metrics.jsonl')  # now rather than after the first epoch
    fresh = state_lib.create(run.classifier, program.tx)
    start = resume.start(store, interrupted, fresh, console, before=min(missing))
    existing = processes.on_first(store.epochs)()  # without those moved aside
    log = metrics.MetricsLog(directory / 'metrics.jsonl', keep={*range(1, start.done + 1), *existing})
    placed = sharding.of_state(start.state, program.mesh, shard=bool(recipe.shard_parameters))
    state = sharding.place(start.state, placed)
    skipped = int(optim.diagnostics(start.state.opt_state).get('skipped_count', 0))
    trainee = epoch_lib.Trainee(run.name, run.loader, state, start.progress)
    return OpenRun(
        run.classifier, trainee, start.done, max(missing), needed, existing, skipped, store, interrupted, log, console
    )


def needed_epochs(recipe: Recipe, keep_all: bool) -> set[int]:
    """Returns the epochs for which every finished run has a checkpoint."""
    return set(range(1, recipe.epochs + 1)) if keep_all else {recipe.epochs}

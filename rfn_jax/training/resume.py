"""Where a training run resumes, and what it needs for that: the newest readable checkpoints before the missing ones."""

import dataclasses
from collections.abc import Collection

import numpy as np
from etils import epath

from rfn_jax.core import console as console_lib
from rfn_jax.core import errors, io, processes
from rfn_jax.training import checkpoints
from rfn_jax.training import epoch as epoch_lib
from rfn_jax.training import state as state_lib

STATES = 2  # number of states kept: one more than needed, in case the newest is damaged


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
      done: Number of finished epochs.
      state: The state, on the host.
      progress: How far the epoch after those is.
    """

    done: int
    state: state_lib.TrainState
    progress: epoch_lib.Progress = epoch_lib.NOT_STARTED


class InterruptedEpoch:
    """The state in the middle of an epoch that was stopped: `<directory>/<steps>`, and the metrics in `progress.json`.

    Args:
      directory: Where it is stored; missing unless a run was stopped.
    """

    def __init__(self, directory: epath.Path):
        self.directory = directory

    def save(self, epoch: int, state: state_lib.TrainState, progress: epoch_lib.Progress) -> None:
        """Saves the state; whatever was saved before is deleted.

        Raises:
          RunError: It could not be saved.
        """
        self.delete()
        with checkpoints.CheckpointStore(self.directory) as store:
            store.save(progress.steps, state)
        io.write_json(self.directory / 'progress.json', {'epoch': epoch, **progress._asdict()})

    def load(self, fresh: state_lib.TrainState, *, after: int, before: int) -> Start | None:
        """Returns the state, if it can be read and is newer than that of epoch `after`, and no later than `before` needs.

        Raises:
          InputError: It belongs to another model or optimizer.
        """
        try:
            saved = io.read_json_object(self.directory / 'progress.json')
            progress = epoch_lib.Progress(int(saved['steps']), dict(saved['history']))
            if 'loss' not in progress.history or any(
                np.shape(v) != (progress.steps,) for v in progress.history.values()
            ):
                return None
            np.asarray(list(progress.history.values()), np.float64)  # raises for what is not a number
            done = int(saved['epoch']) - 1
        except (errors.InputError, KeyError, TypeError, ValueError):  # missing, or damaged
            return None
        if not after <= done < before:
            return None
        try:
            return Start(done, checkpoints.CheckpointStore(self.directory).restore(progress.steps, fresh), progress)
        except errors.RunError:
            return None

    def delete(self) -> None:
        """Deletes the state if there is one."""
        self.directory.rmtree(missing_ok=True)


def start(
    store: checkpoints.CheckpointStore,
    interrupted: InterruptedEpoch,
    fresh: state_lib.TrainState,
    console: console_lib.Console,
    *,
    before: int,
) -> Start:
    """Returns the newest state that can be read; with several processes, what the first one reads.

    A checkpoint that cannot be read is reported and moved aside.

    Args:
      store: The checkpoints.
      interrupted: The state of an epoch that was stopped.
      fresh: The state before the first step.
      console: Where to report damage.
      before: The first epoch that must be trained: only states of earlier epochs are useful.

    Raises:
      InputError: A checkpoint belongs to another model or optimizer.
      RunError: The directory cannot be read, or a damaged checkpoint cannot be moved.
    """
    found: list[Start] = []

    def read() -> list:
        done, state = _newest_state(store, fresh, console, before=before)
        found.append(interrupted.load(fresh, after=done, before=before) or Start(done, state))
        return [found[0].done, *found[0].progress]

    done, *progress = processes.on_first(read)()
    state = processes.arrays_from_first(lambda: found[0].state, fresh)
    return Start(done, state, epoch_lib.Progress(*progress))


def _newest_state(
    store: checkpoints.CheckpointStore, fresh: state_lib.TrainState, console: console_lib.Console, *, before: int
) -> tuple[int, state_lib.TrainState]:
    """The number of finished epochs and the state after them; 0 and `fresh` if no state can be read."""
    for epoch in reversed([epoch for epoch in store.resumable_epochs() if epoch < before]):
        try:
            return epoch, store.restore(epoch, fresh)
        except errors.RunError as error:
            console.info(f'{error}; moved to {store.set_aside(epoch)}, continuing from an earlier epoch')
    return 0, fresh


def delete_unneeded_states(store: checkpoints.CheckpointStore, needed: Collection[int]) -> None:
    """Deletes the optimizer states that no run will resume from: all but the newest ones and the newest ones before a gap.

    The gap is the first epoch of `needed` without a checkpoint: if the run is stopped now, that checkpoint is the first one
    to be made when it resumes. No save may be in progress.

    Args:
      store: The checkpoints.
      needed: The epochs whose checkpoints a finished run has.

    Raises:
      RunError: The directory cannot be read.
    """
    resumable = store.resumable_epochs()
    gap = min(set(needed) - set(store.epochs()), default=0)
    before = [epoch for epoch in resumable if epoch < gap]
    store.delete_optimizers(keep={*resumable[-STATES:], *before[-STATES:]})

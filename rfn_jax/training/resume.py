"""Where a training run resumes, and what it needs for that: the newest readable checkpoints before the missing ones."""

from collections.abc import Collection

from rfn_jax.core import console as console_lib
from rfn_jax.core import errors
from rfn_jax.training import checkpoints
from rfn_jax.training import state as state_lib

STATES = 2  # number of states kept: one more than needed, in case the newest is damaged


def newest_state(
    store: checkpoints.CheckpointStore, fresh: state_lib.TrainState, console: console_lib.Console, *, before: int
) -> tuple[int, state_lib.TrainState]:
    """Returns the newest state that can be read.

    A checkpoint that cannot be read is reported and moved aside.

    Args:
      store: The checkpoints.
      fresh: The state before the first step.
      console: Where to report damage.
      before: The first epoch that must be trained: only states of earlier epochs are useful.

    Returns:
      The number of finished epochs and the state after them; 0 and `fresh` if no state can be read.

    Raises:
      InputError: A checkpoint belongs to another model or optimizer.
      RunError: The directory cannot be read, or a damaged checkpoint cannot be moved.
    """
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

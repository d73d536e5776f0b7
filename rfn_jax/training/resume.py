"""Where a training run goes on, and what it needs for that: the newest readable checkpoints before what is missing."""

from collections.abc import Collection

from rfn_jax.core import console as console_lib
from rfn_jax.core import errors
from rfn_jax.training import checkpoints
from rfn_jax.training import state as state_lib

STATES = 2  # that are kept: one more than needed, should the newest be damaged


def newest_state(
    store: checkpoints.CheckpointStore, fresh: state_lib.TrainState, console: console_lib.Console, *, before: int
) -> tuple[int, state_lib.TrainState]:
    """The newest state that can be read.

    A checkpoint that cannot be read is reported and moved aside.

    Args:
      store: The checkpoints.
      fresh: The state before the first step.
      console: Where to tell what is damaged.
      before: The epoch that must be trained: only states of earlier epochs are of use.

    Returns:
      The number of epochs done, and the state after them: 0 and `fresh` if there is none.

    Raises:
      InputError: A checkpoint is of another model or optimizer.
      RunError: The directory cannot be read, or a damaged checkpoint not be moved.
    """
    for epoch in reversed([epoch for epoch in store.resumable() if epoch < before]):
        try:
            return epoch, store.restore(epoch, fresh)
        except errors.RunError as error:
            console.info(f'{error}; moved to {store.set_aside(epoch)}, going on from the epoch before')
    return 0, fresh


def forget_states(store: checkpoints.CheckpointStore, needed: Collection[int]) -> None:
    """Deletes the states of the optimizer that nothing goes on from: all but the newest, and the newest before a gap.

    The gap is the first epoch of `needed` without a checkpoint, which a run that is stopped now makes first. Nothing may be
    in the middle of being saved.

    Args:
      store: The checkpoints.
      needed: The epochs whose checkpoints a finished run has.

    Raises:
      RunError: The directory cannot be read.
    """
    resumable = store.resumable()
    gap = min(set(needed) - set(store.epochs()), default=0)
    before = [epoch for epoch in resumable if epoch < gap]
    store.forget_optimizers(keep={*resumable[-STATES:], *before[-STATES:]})

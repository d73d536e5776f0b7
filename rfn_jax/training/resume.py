"""Where a training run goes on: at the newest readable checkpoint."""

from rfn_jax.core import console as console_lib
from rfn_jax.core import errors
from rfn_jax.training import checkpoints
from rfn_jax.training import state as state_lib


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
    """
    for epoch in reversed([epoch for epoch in store.resumable() if epoch < before]):
        try:
            return epoch, store.restore(epoch, fresh)
        except errors.RunError as error:
            console.info(f'{error}; moved to {store.set_aside(epoch)}, going on from the epoch before')
    return 0, fresh

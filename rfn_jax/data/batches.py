"""The order of training examples."""

import jax

from rfn_jax.core import errors, rng


def epoch_order(examples: int, batch_size: int, *, seed: int, epoch: int) -> jax.Array:
    """Returns the shuffled positions of one epoch; examples that do not fill a whole batch are left out of the epoch.

    Args:
      examples: Number of training examples.
      batch_size: Examples in a batch, at most `examples`.
      seed: Seed of the run.
      epoch: Number of the epoch; each has its own order.

    Returns:
      int32 `[steps, batch_size]`, a function of the arguments alone, so that a run can resume anywhere.

    Raises:
      InputError: `batch_size` is not in `[1, examples]`.
    """
    steps = steps_per_epoch(examples, batch_size)
    order = jax.random.permutation(rng.key_for(seed, 'shuffle', epoch), examples)
    return order[: steps * batch_size].reshape(steps, batch_size)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Returns the number of whole batches in an epoch.

    Raises:
      InputError: `batch_size` is not in `[1, examples]`.
    """
    if not 1 <= batch_size <= examples:
        raise errors.InputError(
            f'batch_size must be 1 to {examples}, the number of training examples, got {batch_size}'
        )
    return examples // batch_size

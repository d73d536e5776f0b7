"""The order of training examples, and evaluation batches in which every example counts once."""

from collections.abc import Iterator

import jax
import numpy as np

from rfn_jax.core import errors, rng
from rfn_jax.data import dataset


def epoch_order(examples: int, batch_size: int, *, seed: int, epoch: int) -> jax.Array:
    """The shuffled positions of one epoch; examples that fill no batch are left out of it.

    Args:
      examples: Number of training examples.
      batch_size: Examples in a batch, at most `examples`.
      seed: Seed of the run.
      epoch: Number of the epoch; each has its own order.

    Returns:
      int32 `[steps, batch_size]`, a function of the arguments alone, so that a run resumes anywhere.

    Raises:
      InputError: `batch_size` is not in `[1, examples]`.
    """
    steps = steps_per_epoch(examples, batch_size)
    order = jax.random.permutation(rng.key_for(seed, 'shuffle', epoch), examples)
    return order[: steps * batch_size].reshape(steps, batch_size)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """How many whole batches an epoch has.

    Raises:
      InputError: `batch_size` is not in `[1, examples]`.
    """
    if not 1 <= batch_size <= examples:
        raise errors.InputError(
            f'batch_size must be 1 to {examples}, the number of training examples, got {batch_size}'
        )
    return examples // batch_size


def padded_batches(data: dataset.ImageDataset, batch_size: int) -> Iterator[tuple[dataset.ImageDataset, int]]:
    """Batches of one size, the last filled up with copies of its last example, so that one compilation serves all.

    Args:
      data: Examples, in order.
      batch_size: Examples in a batch.

    Yields:
      `(batch, count)`: only the first `count` examples of the batch are to be counted.
    """
    for start in range(0, len(data), batch_size):
        positions = np.arange(start, start + batch_size)
        yield data.take(np.minimum(positions, len(data) - 1)), min(batch_size, len(data) - start)

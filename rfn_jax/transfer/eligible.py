"""The examples that a success rate is measured on: those that all targets classify correctly."""

from collections.abc import Mapping

import numpy as np

from rfn_jax import data
from rfn_jax.core import checks, errors


def eligible_examples(
    examples: data.ImageDataset, predictions: Mapping[str, np.ndarray], *, at_most: int
) -> data.ImageDataset:
    """The first examples that every target classifies correctly, in the order of the data set.

    Args:
      examples: N examples.
      predictions: For each target, the classes `[N]` that it predicts for the unchanged images.
      at_most: Maximum number of examples to take, at least 1.

    Returns:
      The eligible examples.

    Raises:
      InputError: There are no targets, `at_most` is below 1, or no example is eligible.
    """
    positions = eligible_positions(examples.labels, predictions, at_most=at_most, source=examples.source)
    return examples.take(positions)


def eligible_positions(
    labels: np.ndarray, predictions: Mapping[str, np.ndarray], *, at_most: int, source: str, balanced: bool = False
) -> np.ndarray:
    """The positions of the examples that every target classifies correctly.

    Args:
      labels: The true classes of N examples, int `[N]`.
      predictions: For each target, the classes `[N]` that it predicts for the unchanged images.
      at_most: Maximum number of examples to take, at least 1.
      source: Where the examples come from, for messages.
      balanced: Whether to take the first example of each class, then the second of each class, and so on, so that no class
        has more than its share while others have more to give. Otherwise the first examples are taken, whatever their class.

    Returns:
      Increasing integers `[M]`.

    Raises:
      InputError: As for `eligible_examples`.
    """
    if not predictions:
        raise errors.InputError('success rates need at least one target')
    checks.integer('at_most', at_most, at_least=1)
    correct = np.stack([predicted == labels for predicted in predictions.values()])
    mask = correct.all(axis=0)
    if not mask.any():
        shares = ', '.join(f'{name} {share:.1%}' for name, share in zip(predictions, correct.mean(axis=1), strict=True))
        raise errors.InputError(
            f'none of the {len(labels)} examples of {source} is classified correctly by all targets '
            f'({shares}); train the targets longer or leave out the weakest'
        )
    positions = np.flatnonzero(mask)
    if balanced:
        by_class = np.argsort(labels[positions], kind='stable')
        turn = np.empty(len(positions), np.int64)  # how many eligible examples of its class come before each one
        starts = np.searchsorted(labels[positions][by_class], labels[positions][by_class])
        turn[by_class] = np.arange(len(positions)) - starts
        positions = positions[np.argsort(turn, kind='stable')]
    return np.sort(positions[:at_most])

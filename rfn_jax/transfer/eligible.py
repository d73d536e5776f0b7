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
    if not predictions:
        raise errors.InputError('success rates need at least one target')
    checks.integer('at_most', at_most, at_least=1)
    correct = np.stack([predicted == examples.labels for predicted in predictions.values()])
    mask = correct.all(axis=0)
    if not mask.any():
        shares = ', '.join(f'{name} {share:.1%}' for name, share in zip(predictions, correct.mean(axis=1), strict=True))
        raise errors.InputError(
            f'none of the {len(examples)} examples of {examples.source} is classified correctly by all targets '
            f'({shares}); train the targets longer or leave out the weakest'
        )
    return examples.take(np.flatnonzero(mask)[:at_most])

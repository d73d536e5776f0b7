"""Learning-rate schedules given in epochs."""

import collections
from collections.abc import Sequence

import optax

from rfn_jax.core import errors


def step_decay(
    learning_rate: float, *, decay_epochs: Sequence[float], decay_factor: float, steps_per_epoch: int
) -> optax.Schedule:
    """Multiplies the learning rate by `decay_factor` at the start of each of `decay_epochs`.

    Args:
      learning_rate: Rate of the first epoch, above 0.
      decay_epochs: Increasing numbers of epochs after which the rate decays; empty for a constant rate.
      decay_factor: Factor above 0, 0.1 in the paper.
      steps_per_epoch: Steps in an epoch.

    Returns:
      An optax schedule of the number of steps.

    Raises:
      InputError: A value is out of its range.
    """
    if not learning_rate > 0:
        raise errors.InputError(f'learning_rate must be above 0, got {learning_rate!r}')
    if not decay_factor > 0:
        raise errors.InputError(f'decay_factor must be above 0, got {decay_factor!r}')
    if list(decay_epochs) != sorted(set(decay_epochs)) or any(epoch <= 0 for epoch in decay_epochs):
        raise errors.InputError(f'decay_epochs must be positive and increasing, got {tuple(decay_epochs)}')
    boundaries = collections.defaultdict(lambda: 1.0)
    for epoch in decay_epochs:
        boundaries[round(epoch * steps_per_epoch)] *= decay_factor
    return optax.piecewise_constant_schedule(learning_rate, boundaries)

"""Learning-rate schedules defined in epochs, and radius schedules that follow the learning rate."""

import collections
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from rfn_jax.core import checks, errors


def step_decay(
    learning_rate: float,
    *,
    decay_epochs: Sequence[float],
    decay_factor: float,
    steps_per_epoch: int,
    warmup_epochs: float = 0.0,
) -> optax.Schedule:
    """A learning rate that is multiplied by `decay_factor` at each of `decay_epochs`.

    With a warm-up of W steps, step t (from 0) of the first W has (t + 1) / W of that rate, as is usual for large batches
    (`Goyal et al. <https://arxiv.org/abs/1706.02677>`_, 2017).

    Args:
      learning_rate: Initial learning rate, above 0.
      decay_epochs: Increasing numbers of epochs after which the rate decays; empty for a constant rate.
      decay_factor: Factor of each decay, above 0; 0.1 in the paper.
      steps_per_epoch: Number of steps in an epoch.
      warmup_epochs: Length of the warm-up, at least 0.

    Returns:
      An optax schedule of the number of steps.

    Raises:
      InputError: A value is out of range.
    """
    checks.number('learning_rate', learning_rate, above=0)
    checks.number('decay_factor', decay_factor, above=0)
    if list(decay_epochs) != sorted(set(decay_epochs)) or any(epoch <= 0 for epoch in decay_epochs):
        raise errors.InputError(f'decay_epochs must be positive and increasing, got {tuple(decay_epochs)}')
    boundaries: dict[int, float] = collections.defaultdict(lambda: 1.0)
    for epoch in decay_epochs:
        boundaries[round(epoch * steps_per_epoch)] *= decay_factor
    decayed = optax.piecewise_constant_schedule(learning_rate, boundaries)
    warmup_steps = round(checks.number('warmup_epochs', warmup_epochs, at_least=0) * steps_per_epoch)
    if not warmup_steps:
        return decayed
    return lambda count: decayed(count) * jnp.minimum((count + 1) / warmup_steps, 1)


def rho_with_learning_rate(
    learning_rate: optax.ScalarOrSchedule,
    *,
    rho_min: float,
    rho_max: float,
    learning_rate_max: float,
    learning_rate_min: float = 0.0,
) -> optax.Schedule:
    r"""A radius that follows the learning rate, as in GSAM.

    .. math::
      \rho_t = \rho_{min} + (\rho_{max} - \rho_{min}) \frac{\eta_t - \eta_{min}}{\eta_{max} - \eta_{min}}

    Args:
      learning_rate: :math:`\eta_t`, the learning rate of the optimizer, a number or a schedule.
      rho_min: :math:`\rho_{min}`, the radius at `learning_rate_min`, at least 0.
      rho_max: :math:`\rho_{max}`, the radius at `learning_rate_max`, at least `rho_min`.
      learning_rate_max: :math:`\eta_{max}`, the highest learning rate.
      learning_rate_min: :math:`\eta_{min}`, the lowest learning rate, at least 0 and below `learning_rate_max`.

    Returns:
      An optax schedule of the number of updates; its radii are clipped to `[rho_min, rho_max]`.

    Raises:
      InputError: A value is out of range.

    References:
      Zhuang et al., `Surrogate Gap Minimization Improves Sharpness-Aware Training <https://arxiv.org/abs/2203.08065>`_,
      2022.
    """
    if not 0 <= rho_min <= rho_max < math.inf:
        raise errors.InputError(
            f'rho_min and rho_max must satisfy 0 <= rho_min <= rho_max, got {rho_min!r}, {rho_max!r}'
        )
    if not 0 <= learning_rate_min < learning_rate_max < math.inf:
        raise errors.InputError(
            'learning_rate_min and learning_rate_max must satisfy 0 <= learning_rate_min < learning_rate_max, got '
            f'{learning_rate_min!r}, {learning_rate_max!r}'
        )

    def schedule(count: ArrayLike) -> jax.Array:
        rate = learning_rate(count) if callable(learning_rate) else learning_rate
        fraction = (rate - learning_rate_min) / (learning_rate_max - learning_rate_min)
        return rho_min + (rho_max - rho_min) * jnp.clip(fraction, 0, 1)

    return schedule

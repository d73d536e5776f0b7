"""Mean black-box success over targets and seeds, and gains over baselines, with intervals.

Axes: `S` seeds, `T` targets, `N` images.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from rfn_jax.transfer import intervals


@dataclasses.dataclass(frozen=True, kw_only=True)
class SummaryRow:
    """Mean black-box success of one training over targets and seeds: one row of `summary.csv`.

    Attributes:
      surrogate: The surrogate's name.
      training: How it was trained.
      attack: Name of the attack.
      eps: Radius of the budget.
      norm: Norm of the budget.
      success_rate: Mean success rate, in [0, 1].
      ci_low: Lower end of its 95 % bootstrap interval over seeds and images.
      ci_high: Upper end of that interval.
      white_box_rate: Mean success on the surrogates themselves.
      natural_accuracy: Mean natural accuracy of the surrogates.
      seeds: S.
      targets: T.
      n: N.
      gradient_evaluations: Number of network gradients for one example.
    """

    surrogate: str
    training: str
    attack: str
    eps: float
    norm: str
    success_rate: float
    ci_low: float | None
    ci_high: float | None
    white_box_rate: float | None
    natural_accuracy: float | None
    seeds: int
    targets: int
    n: int
    gradient_evaluations: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class GainRow:
    """The gain in mean success of one training over a baseline: one row of `gains.csv`.

    Attributes:
      surrogate: The surrogate's name.
      training: How it was trained.
      baseline: The training that it is compared with.
      attack: Name of the attack.
      eps: Radius of the budget.
      norm: Norm of the budget.
      gain: Difference between the mean success rates, in [-1, 1].
      ci_low: Lower end of its 95 % paired bootstrap interval over seeds and images.
      ci_high: Upper end of that interval.
    """

    surrogate: str
    training: str
    baseline: str
    attack: str
    eps: float
    norm: str
    gain: float
    ci_low: float | None
    ci_high: float | None


def mean_success(success: np.ndarray) -> dict[str, float | int | None]:
    """The mean success rate with its 95 % bootstrap interval over seeds and images; the targets are taken as given.

    Args:
      success: Booleans `[S, T, N]` of the black-box targets.

    Returns:
      The columns `success_rate`, `ci_low`, `ci_high`, `seeds`, `targets` and `n` of `summary.csv`.
    """
    by_seed_and_image = success.mean(axis=1)
    low, high = intervals.bootstrap_mean(by_seed_and_image)
    seeds, targets, n = success.shape
    rate = float(by_seed_and_image.mean())
    return {'success_rate': rate, 'ci_low': low, 'ci_high': high, 'seeds': seeds, 'targets': targets, 'n': n}


def gains(success: np.ndarray, baselines: Mapping[str, np.ndarray]) -> list[dict[str, str | float | None]]:
    """The gains in mean success of a training over baselines, paired by seed, target and image.

    Args:
      success: Booleans `[S, T, N]`.
      baselines: For each baseline, booleans `[S, T, N]` on the same seeds, targets and images.

    Returns:
      For each baseline, the columns `baseline`, `gain`, `ci_low` and `ci_high` of `gains.csv`: fractions, not percentage
      points, with the 95 % bootstrap interval over seeds and images.
    """
    rows: list[dict[str, str | float | None]] = []
    for name, baseline in baselines.items():
        difference = (success.astype(np.float64) - baseline).mean(axis=1)
        low, high = intervals.bootstrap_mean(difference)
        rows.append({'baseline': name, 'gain': float(difference.mean()), 'ci_low': low, 'ci_high': high})
    return rows

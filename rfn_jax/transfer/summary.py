"""Mean black-box success over targets and seeds, and gains between trainings, with intervals.

Axes: `S` seeds, `T` targets, `N` images.
"""

from collections.abc import Mapping

import numpy as np

from rfn_jax.transfer import intervals

SUMMARY_COLUMNS = (
    'surrogate', 'training', 'attack', 'eps', 'norm', 'success_rate', 'ci_low', 'ci_high', 'white_box_rate',
    'natural_accuracy', 'seeds', 'targets', 'n', 'gradient_evaluations',
)  # fmt: skip
GAIN_COLUMNS = ('surrogate', 'training', 'baseline', 'attack', 'eps', 'norm', 'gain', 'ci_low', 'ci_high')


def mean_success(success: np.ndarray) -> dict:
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


def gains(success: np.ndarray, baselines: Mapping[str, np.ndarray]) -> list[dict]:
    """By how much a training's mean success is above that of baselines, paired by seed, target and image.

    Args:
      success: Booleans `[S, T, N]`.
      baselines: For each baseline, booleans `[S, T, N]` on the same seeds, targets and images.

    Returns:
      For each baseline the columns `baseline`, `gain`, `ci_low` and `ci_high` of `gains.csv`: fractions, not points, with
      the 95 % bootstrap interval over seeds and images.
    """
    rows = []
    for name, baseline in baselines.items():
        difference = (success.astype(np.float64) - baseline).mean(axis=1)
        low, high = intervals.bootstrap_mean(difference)
        rows.append({'baseline': name, 'gain': float(difference.mean()), 'ci_low': low, 'ci_high': high})
    return rows

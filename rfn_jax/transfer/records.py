"""The rows of the result tables: columns that every reader relies on."""

import dataclasses

import numpy as np

from rfn_jax.transfer import intervals

TRANSFER_COLUMNS = (
    'surrogate', 'training', 'seed', 'epoch', 'attack', 'eps', 'norm', 'target', 'kind', 'success_rate', 'ci_low',
    'ci_high', 'n', 'gradient_evaluations',
)  # fmt: skip
NATURAL_COLUMNS = ('model', 'role', 'training', 'seed', 'epoch', 'accuracy', 'n')

WHITE_BOX, BLACK_BOX = 'white-box', 'black-box'


@dataclasses.dataclass(frozen=True)
class Crafted:
    """What an adversarial set was crafted with, as the tables name it.

    Attributes:
      surrogate: Name of the surrogate's architecture in the config.
      training: How it was trained, such as `'rfn'`.
      seed: Number of the surrogate's seed.
      epoch: Epoch of its checkpoint.
      attack: Name of the attack in the config.
      eps: Radius of the budget.
      norm: Norm of the budget.
      gradient_evaluations: Gradients of the surrogate for one example.
    """

    surrogate: str
    training: str
    seed: int
    epoch: int
    attack: str
    eps: float
    norm: str
    gradient_evaluations: int


def transfer_row(crafted: Crafted, target: str, kind: str, success: np.ndarray) -> dict:
    """One row of `transfer.csv`: the success rate on one target, with its Wilson interval.

    Args:
      crafted: What the examples were crafted with.
      target: Name of the target; of the surrogate itself if `kind` is white-box.
      kind: `WHITE_BOX` or `BLACK_BOX`.
      success: Booleans `[N]`: whether the target misclassifies each adversarial example.

    Returns:
      A dictionary with the keys `TRANSFER_COLUMNS`.
    """
    low, high = intervals.wilson(int(success.sum()), len(success))
    return {
        **dataclasses.asdict(crafted),
        'target': target,
        'kind': kind,
        'success_rate': float(success.mean()),
        'ci_low': low,
        'ci_high': high,
        'n': len(success),
    }


def natural_row(model: str, role: str, training: str, seed: int, epoch: int, right: np.ndarray) -> dict:
    """One row of `natural.csv`.

    Args:
      model: Name of the model in the config.
      role: `'surrogate'`, `'target'` or `'validation_target'`.
      training: How it was trained.
      seed: Number of its seed.
      epoch: Epoch of its checkpoint.
      right: Booleans `[N]`: whether it classifies each unchanged example correctly.

    Returns:
      A dictionary with the keys `NATURAL_COLUMNS`.
    """
    values = (model, role, training, seed, epoch, float(right.mean()), len(right))
    return dict(zip(NATURAL_COLUMNS, values, strict=True))

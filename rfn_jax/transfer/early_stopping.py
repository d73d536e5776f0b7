"""The early-stopping epoch: the epoch at which a training's success on the validation targets is highest."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from rfn_jax.transfer import records


@dataclasses.dataclass(frozen=True)
class EarlyStoppingRow:
    """The epoch at which a training is stopped: one row of `early_stopping.csv`.

    Attributes:
      surrogate: The surrogate's name.
      training: Name of the early-stopped training.
      stops: The training that it cuts short.
      epoch: The epoch.
      success_rate: Mean success at that epoch, on validation images and validation targets, in [0, 1].
    """

    surrogate: str
    training: str
    stops: str
    epoch: int
    success_rate: float


def best_epoch(rows: Iterable[records.TransferRow], surrogate: str, training: str) -> tuple[int, float]:
    """The epoch with the highest mean black-box success over seeds and targets; the earliest of several that tie.

    Pass only rows that were measured on validation images and validation targets: a rate that was used for a choice must not
    be reported as a result.

    Args:
      rows: Rows of a transfer table, all for one attack.
      surrogate: The surrogate's name.
      training: The training that is stopped early.

    Returns:
      The epoch and its mean success rate.

    Raises:
      ValueError: There are no rows of this surrogate and training.
    """
    by_epoch: dict[int, list[float]] = {}
    for row in rows:
        if (row.surrogate, row.training, row.kind) == (surrogate, training, records.BLACK_BOX):
            by_epoch.setdefault(row.epoch, []).append(row.success_rate)
    if not by_epoch:
        raise ValueError(f'no black-box rows of surrogate {surrogate!r} and training {training!r}')
    means = {epoch: float(np.mean(rates)) for epoch, rates in by_epoch.items()}
    epoch = min(means, key=lambda e: (-means[e], e))
    return epoch, means[epoch]

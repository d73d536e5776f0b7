"""The rows of `transfer.csv`, `natural.csv` and `examples.csv`, whose columns every reader relies on."""

import dataclasses
from typing import Any

import numpy as np

from rfn_jax.transfer import intervals

WHITE_BOX, BLACK_BOX = 'white-box', 'black-box'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crafted:
    """How an adversarial set was crafted, as named in the tables.

    Attributes:
      surrogate: Name of the surrogate's architecture in the config.
      training: How it was trained, such as `'rfn'`.
      seed: Number of the surrogate's seed.
      epoch: Epoch of its checkpoint.
      attack: Name of the attack in the config.
      eps: Radius of the budget.
      norm: Norm of the budget.
    """

    surrogate: str
    training: str
    seed: int
    epoch: int
    attack: str
    eps: float
    norm: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnTarget(Crafted):
    """An adversarial set, and the target that it is measured on.

    Attributes:
      target: Name of the target; the surrogate itself if `kind` is white-box.
      kind: `WHITE_BOX` or `BLACK_BOX`.
    """

    target: str
    kind: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferRow(OnTarget):
    """Success on one target of one attack, crafted on one trained surrogate: one row of `transfer.csv`.

    Attributes:
      success_rate: Fraction of the adversarial examples that the target misclassifies, in [0, 1].
      ci_low: Lower end of the 95 % Wilson interval.
      ci_high: Upper end of that interval.
      n: Number of examples.
      gradient_evaluations: Number of network gradients for one example.
    """

    success_rate: float
    ci_low: float
    ci_high: float
    n: int
    gradient_evaluations: int

    @classmethod
    def of(
        cls, crafted: Crafted, target: str, kind: str, success: np.ndarray, *, gradient_evaluations: int
    ) -> 'TransferRow':
        """The row for booleans `[N]` that say whether the target misclassifies each adversarial example."""
        low, high = intervals.wilson(int(success.sum()), len(success))
        return cls(
            **dataclasses.asdict(crafted),
            target=target,
            kind=kind,
            success_rate=float(success.mean()),
            ci_low=low,
            ci_high=high,
            n=len(success),
            gradient_evaluations=gradient_evaluations,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NaturalRow:
    """Natural accuracy of one network: one row of `natural.csv`.

    Attributes:
      model: Name of the model in the config.
      role: `'surrogate'`, `'target'` or `'validation_target'`.
      training: How it was trained.
      seed: Number of its seed.
      epoch: Epoch of its checkpoint.
      accuracy: Fraction of the unchanged examples that it classifies correctly, in [0, 1].
      top5_accuracy: Fraction of the unchanged examples whose class is among the 5 that it finds most likely.
      n: Number of examples.
    """

    model: str
    role: str
    training: str
    seed: int | None
    epoch: int | None
    accuracy: float
    top5_accuracy: float
    n: int

    @classmethod
    def of(cls, correct: np.ndarray, in_top5: np.ndarray, **about: Any) -> 'NaturalRow':
        """The row for booleans `[N]` that say whether the class of each unchanged example is the first, or in the top 5."""
        accuracy, top5_accuracy = float(correct.mean()), float(in_top5.mean())
        return cls(**about, accuracy=accuracy, top5_accuracy=top5_accuracy, n=len(correct))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleRow(OnTarget):
    """The predictions of one target for one image before and after the attack: one row of `examples.csv`.

    Attributes:
      id: Id of the example.
      label: Name of its class.
      clean_prediction: Name of the class predicted for the unchanged image.
      adversarial_prediction: Name of the class predicted for the adversarial image.
    """

    id: int
    label: str
    clean_prediction: str
    adversarial_prediction: str

"""The rows of `transfer.csv`, `natural.csv` and `examples.csv`: columns that every reader relies on."""

import dataclasses

import numpy as np

from rfn_jax.transfer import intervals

WHITE_BOX, BLACK_BOX = 'white-box', 'black-box'


@dataclasses.dataclass(frozen=True, kw_only=True)
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
    """What was crafted, and what it is measured on.

    Attributes:
      target: Name of the target; of the surrogate itself if `kind` is white-box.
      kind: `WHITE_BOX` or `BLACK_BOX`.
    """

    target: str
    kind: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferRow(OnTarget):
    """Success of one attack, made on one trained surrogate, on one target; one row of `transfer.csv`.

    Attributes:
      success_rate: Share of the adversarial examples that the target misclassifies, in [0, 1].
      ci_low: Lower end of the 95 % Wilson interval.
      ci_high: Its upper end.
      n: Number of examples.
      gradient_evaluations: Gradients of networks for one example.
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
        """The row of a success rate, from booleans `[N]`: whether the target misclassifies each adversarial example."""
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
    """Natural accuracy of one network; one row of `natural.csv`.

    Attributes:
      model: Name of the model in the config.
      role: `'surrogate'`, `'target'` or `'validation_target'`.
      training: How it was trained.
      seed: Number of its seed.
      epoch: Epoch of its checkpoint.
      accuracy: Share of the unchanged examples that it classifies correctly, in [0, 1].
      n: Number of examples.
    """

    model: str
    role: str
    training: str
    seed: int | None
    epoch: int | None
    accuracy: float
    n: int

    @classmethod
    def of(cls, right: np.ndarray, **about: str | int | None) -> 'NaturalRow':
        """The row of an accuracy, from booleans `[N]`: whether each unchanged example is classified correctly."""
        return cls(**about, accuracy=float(right.mean()), n=len(right))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleRow(OnTarget):
    """What one target says of one image, before and after the attack; one row of `examples.csv`.

    Attributes:
      id: Id of the example.
      label: Name of its class.
      clean_prediction: Name of the class predicted for the unchanged image.
      adversarial_prediction: Name of the class predicted for the adversarial one.
    """

    id: int
    label: str
    clean_prediction: str
    adversarial_prediction: str

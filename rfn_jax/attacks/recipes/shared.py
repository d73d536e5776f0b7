"""The options that named attacks share."""

from typing import TypedDict


class Shared(TypedDict, total=False):
    """Options of all compositions, which hand them on to `compose`; it says their defaults.

    Attributes:
      eps: Radius of the budget.
      norm: `'linf'` or `'l2'`.
      loss: `'cross_entropy'`, `'margin'` or `'logit'`.
      targeted: Whether the attack is called with target labels.
      restarts: Number of runs, of which the best is kept for each example.
      chunk_size: Copies or neighbors that are computed together.
    """

    eps: float
    norm: str
    loss: str
    targeted: bool
    restarts: int
    chunk_size: int


class Iterative(Shared, total=False):
    """Options of all compositions of several steps.

    Attributes:
      step_size: Length of a step; `eps / 10` if None.
      steps: Number of steps.
    """

    step_size: float | None
    steps: int

"""The options that named attacks share."""

from typing import TypedDict


class Shared(TypedDict, total=False):
    """Options of all compositions, which pass them on to `compose`; their defaults are those of `compose`.

    Attributes:
      eps: Radius of the budget.
      norm: `'linf'` or `'l2'`.
      loss: `'cross_entropy'`, `'margin'` or `'logit'`.
      targeted: Whether the attack is called with target labels.
      restarts: Number of runs, of which the best is kept for each example.
      chunk_size: How many copies or neighbors are computed together.
    """

    eps: float
    norm: str
    loss: str
    targeted: bool
    restarts: int
    chunk_size: int


class Iterative(Shared, total=False):
    """Options of all compositions with several steps.

    Attributes:
      step_size: Length of a step; by default, `eps / 10`.
      steps: Number of steps.
    """

    step_size: float | None
    steps: int

"""Named attacks: compositions of the engine's parts, in one table.

The defaults are those of the paper that this project reproduces (arXiv 2304.02688): L-infinity, eps = 4/255, steps of eps/10,
50 of them, images in [0, 1]. Each recipe cites where the rest comes from.
"""

import optax

from rfn_jax.attacks import budget, directions, engine, starts
from rfn_jax.core import registry

ATTACKS = registry.Registry('attack')

EPS = 4 / 255
STEPS = 50


@ATTACKS.register
def fgsm(*, eps: float = EPS, norm: str = 'linf') -> engine.Attack:
    """Fast gradient sign method: one step of length `eps`.

    Args:
      eps: Radius of the budget.
      norm: `'linf'` or `'l2'` (then the step follows the normalised gradient).

    Returns:
      The attack.

    Raises:
      InputError: A value is out of its range.

    References:
      Goodfellow et al., `Explaining and Harnessing Adversarial Examples <https://arxiv.org/abs/1412.6572>`_, 2015.
    """
    return _attack('fgsm', eps, norm, eps, 1)


@ATTACKS.register
def bim(*, eps: float = EPS, step_size: float | None = None, steps: int = STEPS, norm: str = 'linf') -> engine.Attack:
    """Basic iterative method (I-FGSM): steps of steepest ascent from the original image.

    Args:
      eps: Radius of the budget.
      step_size: Length of a step; `eps / 10` if None.
      steps: Number of steps.
      norm: `'linf'` or `'l2'`.

    Returns:
      The attack.

    Raises:
      InputError: A value is out of its range.

    References:
      Kurakin et al., `Adversarial Examples in the Physical World <https://arxiv.org/abs/1607.02533>`_, 2017.
    """
    return _attack('bim', eps, norm, step_size, steps)


@ATTACKS.register
def pgd(*, eps: float = EPS, step_size: float | None = None, steps: int = STEPS, norm: str = 'linf') -> engine.Attack:
    """Projected gradient descent: `bim` from a random point of the budget.

    Args:
      eps: Radius of the budget.
      step_size: Length of a step; `eps / 10` if None.
      steps: Number of steps.
      norm: `'linf'` or `'l2'`.

    Returns:
      The attack.

    Raises:
      InputError: A value is out of its range.

    References:
      Madry et al., `Towards Deep Learning Models Resistant to Adversarial Attacks <https://arxiv.org/abs/1706.06083>`_,
      2018.
    """
    return _attack('pgd', eps, norm, step_size, steps, start=starts.uniform_in_ball)


@ATTACKS.register
def mi_fgsm(
    *,
    eps: float = EPS,
    step_size: float | None = None,
    steps: int = STEPS,
    decay: float = 1.0,
    norm: str = 'linf',
) -> engine.Attack:
    """Momentum iterative method: `bim` along accumulated gradients, each normalised by its mean absolute value.

    Args:
      eps: Radius of the budget.
      step_size: Length of a step; `eps / 10` if None.
      steps: Number of steps.
      decay: Decay of the momentum; 1 as in the paper of the attack.
      norm: `'linf'` or `'l2'`.

    Returns:
      The attack.

    Raises:
      InputError: A value is out of its range.

    References:
      Dong et al., `Boosting Adversarial Attacks with Momentum <https://arxiv.org/abs/1710.06081>`_, 2018.
    """
    return _attack('mi_fgsm', eps, norm, step_size, steps, before=(directions.accumulate(decay),))


def _attack(
    name: str,
    eps: float,
    norm: str,
    step_size: float | None,
    steps: int,
    *,
    before: tuple[optax.GradientTransformation, ...] = (),
    start: engine.Start = starts.at_original,
) -> engine.Attack:
    """Steepest ascent inside a budget, with transformations of the gradient before it."""
    limits = budget.Budget(eps, norm)
    return engine.Attack(
        name=name,
        limits=limits,
        direction=optax.chain(*before, directions.steepest(norm)),
        step_size=eps / 10 if step_size is None else step_size,
        steps=steps,
        start=start,
    )

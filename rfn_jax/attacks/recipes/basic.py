"""Attacks that step along the gradient, with momentum, a random start, a kernel or patches."""

from typing import Unpack

from rfn_jax.attacks import composition, engine
from rfn_jax.attacks.recipes.shared import Iterative, Shared


def fgsm(**shared: Unpack[Shared]) -> engine.GradientAttack:
    """Fast gradient sign method: one step of length `eps` (with `'l2'`, along the normalized gradient).

    Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572
    """
    return composition.compose(name='fgsm', steps=1, step_size=shared.get('eps', composition.EPS), **shared)


def bim(**shared: Unpack[Iterative]) -> engine.GradientAttack:
    """Basic iterative method (I-FGSM): steps of steepest ascent from the original image.

    Kurakin et al. 2017, https://arxiv.org/abs/1607.02533
    """
    return composition.compose('', name='bim', **shared)


def pgd(**shared: Unpack[Iterative]) -> engine.GradientAttack:
    """Projected gradient descent: `bim` from a random point in the budget.

    Madry et al. 2018, https://arxiv.org/abs/1706.06083
    """
    return composition.compose('rs', name='pgd', **shared)


def mi_fgsm(*, decay: float = 1.0, **shared: Unpack[Iterative]) -> engine.GradientAttack:
    """Momentum iterative method: `bim` along accumulated gradients, each normalized by its mean absolute value.

    Dong et al. 2018, https://arxiv.org/abs/1710.06081

    Args:
      decay: Decay of the momentum, at least 0.
    """
    return composition.compose('mi', name='mi_fgsm', options={'mi': {'decay': decay}}, **shared)


def ni_fgsm(*, decay: float = 1.0, **shared: Unpack[Iterative]) -> engine.GradientAttack:
    """Nesterov iterative method: the gradient is computed at the point to which the momentum leads.

    Lin et al. 2020, https://arxiv.org/abs/1908.06281

    Args:
      decay: Decay of the momentum, at least 0.
    """
    return composition.compose('ni', name='ni_fgsm', options={'ni': {'decay': decay}}, **shared)


def ti_fgsm(
    *, decay: float = 1.0, size: int = 15, nsig: float = 3.0, kind: str = 'gaussian', **shared: Unpack[Iterative]
) -> engine.GradientAttack:
    """Translation invariance: the gradient is smoothed with a kernel.

    Dong et al. 2019, https://arxiv.org/abs/1904.02884

    Args:
      decay: Decay of the momentum, at least 0.
      size: Rows and columns of the kernel, an odd number.
      nsig: Number of standard deviations from the center of the kernel to its edge.
      kind: `'gaussian'`, `'linear'` or `'uniform'`.
    """
    ti = {'size': size, 'nsig': nsig, 'kind': kind}
    return composition.compose('mi+ti', name='ti_fgsm', options={'mi': {'decay': decay}, 'ti': ti}, **shared)


def pi_fgsm(*, amplification: float = 10.0, kernel_size: int = 3, **shared: Unpack[Iterative]) -> engine.GradientAttack:
    """Patch-wise steps: the part of a change that exceeds the budget is spread over the surrounding pixels.

    Gao et al. 2020, https://arxiv.org/abs/2007.06765

    Args:
      amplification: How much longer than `step_size` a step is.
      kernel_size: Rows and columns of the patch, an odd number.
    """
    return composition.compose(
        'pi', name='pi_fgsm', options={'pi': {'amplification': amplification, 'kernel_size': kernel_size}}, **shared
    )

"""Momentum attacks whose gradient is estimated from several points."""

from typing import Unpack

from rfn_jax.attacks import composition, engine
from rfn_jax.attacks.recipes.shared import Iterative


def vmi_fgsm(
    *, decay: float = 1.0, beta: float = 1.5, neighbors: int = 20, around: str = 'image', **shared: Unpack[Iterative]
) -> engine.GradientAttack:
    """Variance tuning: the gradient is corrected by how those of neighbors differed from it at the previous step.

    Wang and He 2021, https://arxiv.org/abs/2103.15571

    Args:
      decay: Decay of the momentum, at least 0.
      beta: Radius of the neighborhood, as a multiple of `eps`.
      neighbors: Number of neighbors over which gradients are averaged.
      around: Where the neighbors are: around the `'image'`, or around the `'inner'` point (that of the look-ahead).
    """
    vt = {'beta': beta, 'neighbors': neighbors, 'around': around}
    return composition.compose('mi+vt', name='vmi_fgsm', options={'mi': {'decay': decay}, 'vt': vt}, **shared)


def vni_fgsm(
    *, decay: float = 1.0, beta: float = 1.5, neighbors: int = 20, around: str = 'image', **shared: Unpack[Iterative]
) -> engine.GradientAttack:
    """Variance tuning with Nesterov momentum.

    Wang and He 2021, https://arxiv.org/abs/2103.15571

    Args:
      decay: Decay of the momentum, at least 0.
      beta, neighbors, around: As in `vmi_fgsm`.
    """
    vt = {'beta': beta, 'neighbors': neighbors, 'around': around}
    return composition.compose('ni+vt', name='vni_fgsm', options={'ni': {'decay': decay}, 'vt': vt}, **shared)


def pgn(
    *, decay: float = 1.0, beta: float = 3.0, neighbors: int = 20, balance: float = 0.5, **shared: Unpack[Iterative]
) -> engine.GradientAttack:
    """Penalized gradient norm: the gradient is averaged over neighbors and over points one step downhill from them.

    Ge et al. 2023, https://arxiv.org/abs/2306.05225

    Args:
      decay: Decay of the momentum, at least 0.
      beta: Radius of the neighborhood, as a multiple of `eps`.
      neighbors: Number of neighbors over which gradients are averaged.
      balance: Weight of the gradient one step downhill, in [0, 1].
    """
    pgn = {'beta': beta, 'neighbors': neighbors, 'balance': balance}
    return composition.compose('mi+pgn', name='pgn', options={'mi': {'decay': decay}, 'pgn': pgn}, **shared)


def emi_fgsm(
    *, samples: int = 11, radius: float = 7.0, decay: float = 1.0, **shared: Unpack[Iterative]
) -> engine.GradientAttack:
    """Enhanced momentum: the gradient is averaged over points along the gradient of the previous step.

    Wang et al. 2021, https://arxiv.org/abs/2103.10609

    Args:
      samples: Number of points along the previous gradient, at least 2.
      radius: Largest distance of the points from the image, in steps.
      decay: Decay of the momentum, at least 0.
    """
    return composition.compose(
        'emi', name='emi_fgsm', options={'emi': {'samples': samples, 'radius': radius, 'decay': decay}}, **shared
    )


def rap(
    *,
    decay: float = 1.0,
    radius: float | None = None,
    inner_step_size: float | None = None,
    inner_steps: int = 8,
    late_start: int | None = None,
    **shared: Unpack[Iterative],
) -> engine.GradientAttack:
    """Reverse adversarial perturbation: the gradient is computed where the loss is lowest around the image.

    Qin et al. 2022, https://arxiv.org/abs/2210.05968

    Args:
      decay: Decay of the momentum, at least 0.
      radius: Largest size of the reverse perturbation; by default, `eps`.
      inner_step_size: Length of a step of the reverse perturbation; by default, `radius / inner_steps`.
      inner_steps: Number of steps of the reverse perturbation.
      late_start: Number of steps before the first reverse perturbation; by default, a quarter of all steps.
    """
    return composition.compose(
        'mi+rap',
        name='rap',
        options={
            'mi': {'decay': decay},
            'rap': {
                'radius': radius,
                'inner_step_size': inner_step_size,
                'inner_steps': inner_steps,
                'late_start': late_start,
            },
        },
        **shared,
    )

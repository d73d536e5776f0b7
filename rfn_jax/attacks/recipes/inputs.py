"""Momentum attacks on transformed images."""

from typing import Unpack

from rfn_jax.attacks import composition, engine
from rfn_jax.attacks.recipes.shared import Iterative


def di_fgsm(
    *,
    decay: float = 1.0,
    rate: float = 1.1,
    probability: float = 0.5,
    method: str = 'bilinear',
    **shared: Unpack[Iterative],
) -> engine.GradientAttack:
    """Diverse inputs: at each step, the image is resized and padded at random.

    Xie et al. 2019, https://arxiv.org/abs/1803.06978

    Args:
      decay: Decay of the momentum, at least 0.
      rate: Largest (if above 1) or smallest (if below 1) size of the resized image, relative to the size of the image.
      probability: How often an image is resized, in [0, 1].
      method: `'bilinear'` or `'nearest'`.
    """
    di = {'rate': rate, 'probability': probability, 'method': method}
    return composition.compose('mi+di', name='di_fgsm', options={'mi': {'decay': decay}, 'di': di}, **shared)


def si_ni_fgsm(*, decay: float = 1.0, copies: int = 5, **shared: Unpack[Iterative]) -> engine.GradientAttack:
    """Scale invariance: with Nesterov momentum, the gradient is averaged over darker copies of the image.

    Lin et al. 2020, https://arxiv.org/abs/1908.06281

    Args:
      decay: Decay of the momentum, at least 0.
      copies: Number of copies over which the gradient is averaged.
    """
    return composition.compose(
        'ni+si', name='si_ni_fgsm', options={'ni': {'decay': decay}, 'si': {'copies': copies}}, **shared
    )


def admix(
    *,
    decay: float = 1.0,
    mixes: int = 3,
    scales: int = 5,
    portion: float = 0.2,
    other_classes: bool = True,
    **shared: Unpack[Iterative],
) -> engine.GradientAttack:
    """Admix: the gradient is averaged over scaled copies of mixtures with other images.

    Wang et al. 2021, https://arxiv.org/abs/2102.00436

    Args:
      decay: Decay of the momentum, at least 0.
      mixes: Number of images from the pool that are mixed in, one in each mixture.
      scales: Number of scaled copies of each mixture.
      portion: How much of the other image is added, in [0, 1].
      other_classes: Whether only images of other classes are mixed in.
    """
    return composition.compose(
        'mi+admix',
        name='admix',
        options={
            'mi': {'decay': decay},
            'admix': {'mixes': mixes, 'scales': scales, 'portion': portion, 'other_classes': other_classes},
        },
        **shared,
    )


def ssa(
    *, decay: float = 1.0, copies: int = 20, rho: float = 0.5, sigma: float | None = None, **shared: Unpack[Iterative]
) -> engine.GradientAttack:
    """Spectrum simulation: the gradient is averaged over noisy copies whose frequencies are scaled at random.

    Long et al. 2022, https://arxiv.org/abs/2207.05382

    Args:
      decay: Decay of the momentum, at least 0.
      copies: Number of copies over which the gradient is averaged.
      rho: Largest relative change of a frequency.
      sigma: Standard deviation of the noise; by default, `eps`.
    """
    ssa = {'copies': copies, 'rho': rho, 'sigma': sigma}
    return composition.compose('mi+ssa', name='ssa', options={'mi': {'decay': decay}, 'ssa': ssa}, **shared)


def bsr(
    *, decay: float = 1.0, copies: int = 20, blocks: int = 3, max_angle: float = 24.0, **shared: Unpack[Iterative]
) -> engine.GradientAttack:
    """Block shuffle and rotation: the gradient is averaged over copies whose blocks are shuffled and rotated.

    Wang et al. 2024, https://arxiv.org/abs/2308.10299

    Args:
      decay: Decay of the momentum, at least 0.
      copies: Number of copies over which the gradient is averaged.
      blocks: Number of blocks in each direction.
      max_angle: Largest rotation of a block, in degrees.
    """
    bsr = {'copies': copies, 'blocks': blocks, 'max_angle': max_angle}
    return composition.compose('mi+bsr', name='bsr', options={'mi': {'decay': decay}, 'bsr': bsr}, **shared)

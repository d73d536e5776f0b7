"""Momentum attacks that act inside the network."""

from typing import Unpack

from rfn_jax.attacks import composition, engine, intermediate_level
from rfn_jax.attacks.recipes.shared import Iterative, Shared


def sgm(*, decay: float = 1.0, gamma: float = 0.2, **shared: Unpack[Iterative]) -> engine.GradientAttack:
    """Skip gradient method: the gradients through residual branches are scaled down.

    Wu et al. 2020, https://arxiv.org/abs/2002.05990

    Args:
      decay: Decay of the momentum, at least 0.
      gamma: Factor for the gradients through residual branches, in [0, 1].
    """
    return composition.compose(
        'mi+sgm', name='sgm', options={'mi': {'decay': decay}, 'sgm': {'gamma': gamma}}, **shared
    )


def ghost(
    *, decay: float = 1.0, skip_scale: float = 0.22, dropout: float = 0.0, **shared: Unpack[Iterative]
) -> engine.GradientAttack:
    """Ghost networks: the surrogate is perturbed at random at each step.

    Li et al. 2020, https://arxiv.org/abs/1812.03413

    Args:
      decay: Decay of the momentum, at least 0.
      skip_scale: Largest relative change of a skip connection.
      dropout: Dropout rate after activations.
    """
    ghost = {'skip_scale': skip_scale, 'dropout': dropout}
    return composition.compose('mi+ghost', name='ghost', options={'mi': {'decay': decay}, 'ghost': ghost}, **shared)


def linbp(*, from_layer: str, decay: float = 1.0, **shared: Unpack[Iterative]) -> engine.GradientAttack:
    """Linear backpropagation: the later activations are linear in the backward pass.

    Guo et al. 2020, https://arxiv.org/abs/2012.03528

    Args:
      from_layer: Name of the first layer whose activations are linear in the backward pass.
      decay: Decay of the momentum, at least 0.
    """
    return composition.compose(
        'mi+linbp', name='linbp', options={'linbp': {'from_layer': from_layer}, 'mi': {'decay': decay}}, **shared
    )


def ila(
    *,
    layer: str,
    eps: float = composition.EPS,
    step_size: float | None = None,
    first_steps: int = 10,
    steps: int = 10,
    norm: str = 'linf',
    decay: float = 1.0,
) -> intermediate_level.IntermediateLevelAttack:
    """Intermediate level attack: MI-FGSM, followed by steps along the change that it made to the features of a layer.

    Args:
      layer: Name of the layer, such as `'layer2_0'` of a ResNet.
      eps: Radius of the budget.
      step_size: Length of a step; by default, `eps / 10`.
      first_steps: Number of steps of MI-FGSM.
      steps: Number of steps of the second stage, which starts from the original.
      norm: `'linf'` or `'l2'`.
      decay: Decay of the momentum of the first stage.

    Raises:
      InputError: A value is out of range.

    Huang et al. 2019, https://arxiv.org/abs/1907.10823
    """
    shared: Shared = {'eps': eps, 'norm': norm}
    first = composition.compose(
        'mi', options={'mi': {'decay': decay}}, step_size=step_size, steps=first_steps, name='ila', **shared
    )
    second = composition.compose(step_size=step_size, steps=steps, name='ila', **shared)
    return intermediate_level.IntermediateLevelAttack(first, second, layer)

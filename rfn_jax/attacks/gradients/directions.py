"""Directions: optax gradient transformations that turn the gradient of the loss into the direction of a step.

Each of them treats every example separately, so the result does not depend on the batch. The engine passes them the gradient
to ascend and adds `step_size` times what they return. Compose them with `optax.chain`.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rfn_jax.attacks import budget
from rfn_jax.core import checks, numerics


def steepest(norm: str) -> optax.GradientTransformation:
    r"""The direction of steepest ascent, with length 1 in a norm.

    .. math:: sign(g) \;\; (linf), \qquad g / \|g\|_2 \;\; (l2)

    A zero gradient gives a zero direction.

    Args:
      norm: `'linf'` or `'l2'`.

    Returns:
      A stateless optax transformation of arrays `[B, H, W, C]`.

    Raises:
      InputError: `norm` is unknown.
    """
    checks.one_of('norm', norm, budget.NORMS)
    if norm == 'linf':
        return optax.stateless(lambda gradient, _: jnp.sign(gradient))
    return optax.stateless(lambda gradient, _: numerics.safe_divide(gradient, numerics.batch_norm_l2(gradient)))


class AccumulateState(NamedTuple):
    """State of `accumulate`.

    Attributes:
      momentum: The accumulated gradient `[B, H, W, C]`, in at least float32.
    """

    momentum: jax.Array


def accumulate(decay: float = 1.0) -> optax.GradientTransformation:
    r"""Momentum over gradients that are normalized for each image separately, as in MI-FGSM.

    .. math:: m \leftarrow \mu m + \frac{g}{mean(|g|)}

    The mean absolute value is the paper's L1 norm divided by the size of the image, as in the authors' code; this scale
    makes no difference to `steepest`. The mean is taken over one image, never over the batch.

    Args:
      decay: :math:`\mu`, at least 0.

    Returns:
      An optax transformation of arrays `[B, H, W, C]`.

    Raises:
      InputError: `decay` is not a finite number that is at least 0.

    References:
      Dong et al., `Boosting Adversarial Attacks with Momentum <https://arxiv.org/abs/1710.06081>`_, 2018.
    """
    checks.number('decay', decay, at_least=0)

    def init_fn(images: jax.Array) -> AccumulateState:
        return AccumulateState(numerics.wide_zeros_like(images))

    def update_fn(
        gradient: jax.Array, state: AccumulateState, images: jax.Array | None = None
    ) -> tuple[jax.Array, AccumulateState]:
        del images
        normalized = numerics.safe_divide(gradient, numerics.batch_mean_abs(gradient))
        momentum = decay * state.momentum + normalized
        return momentum, AccumulateState(momentum)

    return optax.GradientTransformation(init_fn, update_fn)

"""Enhanced momentum: the gradient averaged along the direction of the previous one.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax.attacks import keys as keys_lib
from rfn_jax.attacks.gradients import estimate
from rfn_jax.core import checks, numerics


class EnhancedState(NamedTuple):
    """State of `enhanced_momentum`.

    Attributes:
      previous: The average gradient of the previous step, divided by its mean absolute value, `[B, H, W, C]`, in at least
        float32.
    """

    previous: jax.Array


def enhanced_momentum(step_size: float, samples: int = 11, radius: float = 7.0) -> estimate.GradientEstimate:
    r"""The mean gradient on a line through the image, along the mean gradient of the previous step, as in EMI-FGSM.

    .. math::
        g_t = \frac{1}{N} \sum_{i=1}^N \nabla L(x_t + c_i \alpha \bar g_{t-1}), \qquad
        \bar g_t = \frac{g_t}{mean(|g_t|)}, \quad \bar g_{-1} = 0

    with :math:`c_1, \dots, c_N` evenly spaced in :math:`[-\eta, \eta]`. The mean absolute value is taken over one image, as
    in the authors' code (`new_grad / mean(|new_grad|)` in `emi_fgsm.py` of JHL-HUST/EMI) and in TransferAttack
    (`gradient/emifgsm.py`). The points are not clipped to [0, 1]. A step takes `samples` evaluations.

    Args:
      step_size: :math:`\alpha`, the step size of the attack, above 0.
      samples: N, at least 2.
      radius: :math:`\eta`, above 0.

    Returns:
      A gradient estimate.

    Raises:
      InputError: An argument is out of range.

    References:
      Wang et al., `Boosting Adversarial Transferability through Enhanced Momentum <https://arxiv.org/abs/2103.10609>`_,
      2021; the defaults are theirs for linear sampling.
    """
    checks.number('step_size', step_size, above=0)
    checks.number('radius', radius, above=0)
    samples = checks.integer('samples', samples, at_least=2)
    distances = step_size * np.linspace(-radius, radius, samples)

    def init(images: jax.Array) -> EnhancedState:
        return EnhancedState(numerics.wide_zeros_like(images))

    def update(
        grad_fn: estimate.GradFn, images: jax.Array, state: EnhancedState, keys: jax.Array, step: estimate.Step
    ) -> tuple[jax.Array, EnhancedState]:
        factors = jnp.asarray(distances, state.previous.dtype)

        def at_sample(number: jax.Array) -> jax.Array:
            point = images + (factors[number] * state.previous).astype(images.dtype)
            return grad_fn(point, keys_lib.fold(keys, number))

        gradient = step.mean_over(samples, at_sample)
        previous = numerics.safe_divide(gradient, numerics.batch_mean_abs(gradient))
        return gradient, EnhancedState(previous.astype(state.previous.dtype))

    return estimate.GradientEstimate(init, update, lambda steps: samples * steps)

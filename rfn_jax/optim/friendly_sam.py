"""Friendly sharpness-aware minimization (F-SAM)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rfn_jax.core import numerics
from rfn_jax.optim import arguments, ascent, masks
from rfn_jax.optim.sharpness_aware import UpdateInputs, sharpness_aware


class FriendlySamState(NamedTuple):
    """State of `friendly_sam`.

    Attributes:
      sam: State that every minimizer has.
      average_count: Number of gradients in the average, int32; it saturates.
      average: Moving average of the gradients, in float32 (float64 for float64 parameters).
    """

    sam: ascent.SamState
    average_count: jax.Array
    average: optax.Updates


def friendly_sam(
    rho: optax.ScalarOrSchedule = 0.05, *, sigma: float = 1.0, decay: float = 0.9, mask: masks.Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""SAM that perturbs only along the minibatch noise in the gradient, without the direction of the full gradient.

    The full gradient is estimated by a moving average :math:`m` of the gradients :math:`g`, and the ascent follows the
    remainder:

    .. math::
      d_t = g_t - \sigma m_{t-1}, \qquad \nabla L\left(w + \rho \frac{d_t}{\|d_t\|_2}\right), \qquad
      m_t = \lambda m_{t-1} + (1 - \lambda) g_t

    with :math:`d_0 = m_0 = g_0` for the first finite gradient, so that the first update is that of `sam`. Gradients that are
    not finite do not enter :math:`m`.

    Args:
      rho: Radius, a number or a schedule; see `sam`.
      sigma: :math:`\sigma`, at least 0; 1 in the paper, and 0 gives `sam`.
      decay: :math:`\lambda`, from 0 to 1; 0.9 is the default of the authors' code.
      mask: Which parameters are perturbed; see `sam`.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose `update` needs `params` and `grad_fn`; see `sam`.

    Raises:
      ValueError: `rho` or `sigma` is negative or not finite, or `decay` is not in [0, 1]; otherwise as for `sam`.
      TypeError: As for `sam`.

    References:
      Li et al., `Friendly Sharpness-Aware Minimization <https://arxiv.org/abs/2403.12350>`_, 2024.
    """
    arguments.check_number('sigma', sigma, at_least=0)
    arguments.check_number('decay', decay, at_least=0, at_most=1)

    def init_state(sam: ascent.SamState, params: optax.Params) -> FriendlySamState:
        return FriendlySamState(sam, jnp.zeros((), jnp.int32), jax.tree.map(numerics.wide_zeros_like, params))

    def ascend_along_noise(
        inputs: UpdateInputs, state: FriendlySamState
    ) -> tuple[ascent.AscentResult, FriendlySamState]:
        direction = jax.tree.map(
            lambda g, m: g.astype(m.dtype) - jnp.asarray(sigma, m.dtype) * m, inputs.updates, state.average
        )
        result = inputs.ascend(direction=direction)
        finite = numerics.all_finite(inputs.updates)
        is_first = state.average_count == 0

        def update_average(m: jax.Array, g: jax.Array) -> jax.Array:
            g = g.astype(m.dtype)
            fraction = jnp.where(is_first, 1, 1 - decay).astype(m.dtype)
            return jnp.where(finite, m + fraction * (g - m), m)

        count = jnp.where(finite, optax.safe_increment(state.average_count), state.average_count)
        average = jax.tree.map(update_average, state.average, inputs.updates)
        return result, state._replace(average_count=count, average=average)

    return sharpness_aware('friendly_sam', rho, mask, ascend_along_noise, init_state=init_state)


def rfn_friendly_sam(
    rho: optax.ScalarOrSchedule = 0.4, *, sigma: float = 1.0, decay: float = 0.9, mask: masks.Mask = None
) -> optax.GradientTransformationExtraArgs:
    """`friendly_sam` in a large neighborhood, with the radius of `rfn_sam`.

    Arguments, result and errors are those of `friendly_sam`.
    """
    return friendly_sam(rho, sigma=sigma, decay=decay, mask=mask)

"""Surrogate-gap guided sharpness-aware minimization (GSAM)."""

import jax
import jax.numpy as jnp
import optax

from rfn_jax.core import numerics
from rfn_jax.optim import arguments, ascent, masks
from rfn_jax.optim.sharpness_aware import Call, sharpness_aware


def gsam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    alpha: float = 0.4,
    mask: masks.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SAM that also descends along the gap between the perturbed loss and the loss.

    With the gradient :math:`g` at the weights and :math:`g_p` at the perturbed weights of `sam`, it returns

    .. math::
      g_p - \alpha g_\perp, \qquad g_\perp = g - \frac{\langle g, g_p \rangle}{\|g_p\|_2^2} g_p

    :math:`-g_\perp` lowers the gap and leaves the perturbed loss alone to first order. In the paper `rho` follows the
    learning rate: `rho=rho_with_learning_rate(schedule, ...)`.

    Args:
      rho: Radius of the ascent, a number or a schedule; see `sam`.
      alpha: :math:`\alpha`, at least 0; 0 is `sam`. 0.4 is the default of the authors' code.
      mask: Which parameters are perturbed; see `sam`. The decomposition is over all of them.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose `update` needs `params` and `grad_fn`; see `sam`.

    Raises:
      ValueError: `rho` or `alpha` is negative or not finite; or as `sam`.
      TypeError: As `sam`.

    References:
      Zhuang et al., `Surrogate Gap Minimization Improves Sharpness-Aware Training <https://arxiv.org/abs/2203.08065>`_,
      2022.
    """
    arguments.check_number('alpha', alpha, at_least=0)

    def along_the_gap(call: Call) -> ascent.Climb:
        climbed = call.climb()
        # g and g - g_p have the same orthogonal part; the difference makes it exactly zero where g = g_p.
        difference = jax.tree.map(lambda g, p: numerics.wide(g) - numerics.wide(p), call.updates, climbed.gradient)
        orthogonal = ascent.orthogonal_part(difference, climbed.gradient)
        gradient = jax.tree.map(
            lambda p, o: (p.astype(o.dtype) - jnp.asarray(alpha, o.dtype) * o).astype(p.dtype),
            climbed.gradient,
            orthogonal,
        )
        return climbed._replace(gradient=gradient)

    return sharpness_aware('gsam', rho, mask, along_the_gap)


def rfn_gsam(
    rho: optax.ScalarOrSchedule = 0.4, *, alpha: float = 0.4, mask: masks.Mask = None
) -> optax.GradientTransformationExtraArgs:
    """`gsam` in a large neighborhood: the radius of `rfn_sam`.

    Arguments, result and errors are those of `gsam`.
    """
    return gsam(rho, alpha=alpha, mask=mask)

"""Surrogate-gap guided sharpness-aware minimization (GSAM)."""

import jax
import jax.numpy as jnp
import optax

from rfn_jax.core import numerics
from rfn_jax.optim import arguments, ascent, masks
from rfn_jax.optim.sharpness_aware import UpdateInputs, sharpness_aware


def gsam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    alpha: float = 0.4,
    mask: masks.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SAM that also reduces the gap between the perturbed loss and the loss.

    With the gradient :math:`g` at the weights and :math:`g_p` at the perturbed weights of `sam`, it returns

    .. math::
      g_p - \alpha g_\perp, \qquad g_\perp = g - \frac{\langle g, g_p \rangle}{\|g_p\|_2^2} g_p

    To first order, the term in :math:`g_\perp` reduces the gap without changing the perturbed loss. In the paper, `rho`
    follows the learning rate: `rho=rho_with_learning_rate(schedule, ...)`.

    Args:
      rho: Radius of the ascent, a number or a schedule; see `sam`.
      alpha: :math:`\alpha`, at least 0; 0 gives `sam`, and 0.4 is the default of the authors' code.
      mask: Which parameters are perturbed; see `sam`. The decomposition is over all parameters.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose `update` needs `params` and `grad_fn`; see `sam`.

    Raises:
      ValueError: `rho` or `alpha` is negative or not finite; otherwise as for `sam`.
      TypeError: As for `sam`.

    References:
      Zhuang et al., `Surrogate Gap Minimization Improves Sharpness-Aware Training <https://arxiv.org/abs/2203.08065>`_,
      2022.
    """
    arguments.check_number('alpha', alpha, at_least=0)

    def reduce_gap(inputs: UpdateInputs) -> ascent.AscentResult:
        result = inputs.ascend()
        # g and g - g_p have the same orthogonal part; computed from the difference, it is exactly zero if g = g_p.
        difference = jax.tree.map(lambda g, p: numerics.wide(g) - numerics.wide(p), inputs.updates, result.gradient)
        orthogonal = ascent.orthogonal_part(difference, result.gradient)
        gradient = jax.tree.map(
            lambda p, o: (p.astype(o.dtype) - jnp.asarray(alpha, o.dtype) * o).astype(p.dtype),
            result.gradient,
            orthogonal,
        )
        return result._replace(gradient=gradient)

    return sharpness_aware('gsam', rho, mask, reduce_gap)


def rfn_gsam(
    rho: optax.ScalarOrSchedule = 0.4, *, alpha: float = 0.4, mask: masks.Mask = None
) -> optax.GradientTransformationExtraArgs:
    """`gsam` in a large neighborhood, with the radius of `rfn_sam`.

    Arguments, result and errors are those of `gsam`.
    """
    return gsam(rho, alpha=alpha, mask=mask)

"""LookSAM: SAM that ascends at every k-th update only and reuses part of the gradient in between."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rfn_jax.core import numerics
from rfn_jax.optim import arguments, ascent, masks
from rfn_jax.optim.sharpness_aware import UpdateInputs, sharpness_aware

# An orthogonal part with a norm below this fraction of the gradient norm is rounding error (of float32, with a margin).
RELATIVE_ROUNDING_ERROR = 1e-6


class LookSamState(NamedTuple):
    """State of `looksam`.

    Attributes:
      sam: State that every minimizer has; `perturbation_norm` is 0 after an update without an ascent.
      orthogonal: The part of the last perturbed gradient that is orthogonal to the unperturbed gradient, in float32 (float64
        for float64 parameters).
    """

    sam: ascent.SamState
    orthogonal: optax.Updates


def looksam(
    rho: optax.ScalarOrSchedule = 0.05, *, k: int = 5, alpha: float = 0.7, mask: masks.Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""SAM that ascends at every k-th update only and, in between, reuses the part of the gradient that changes slowly.

    At updates 0, k, 2k, ... it returns the gradient :math:`g_p` of `sam` and stores the part of it that is orthogonal to the
    unperturbed gradient :math:`g`, :math:`g_v = g_p - \frac{\langle g_p, g \rangle}{\|g\|_2^2} g`. At the other updates it
    returns

    .. math::
      g + \alpha \frac{\|g\|_2}{\|g_v\|_2} g_v

    The ascent is inside a `lax.cond`, so that the other updates cost one gradient each. (On a CPU, gradients of convolutions
    inside `lax.cond` are slow, except in the models of this library.)

    Args:
      rho: Radius of the ascent, a number or a schedule; see `sam`.
      k: Number of updates from one ascent to the next, at least 1; 1 gives `sam`.
      alpha: :math:`\alpha`, at least 0; 0.7 in the paper.
      mask: Which parameters are perturbed; see `sam`. The decomposition is over all parameters.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose `update` needs `params` and `grad_fn`; see `sam`.

    Raises:
      ValueError: `rho` or `alpha` is negative or not finite, or `k` is below 1; otherwise as for `sam`.
      TypeError: As for `sam`.

    References:
      Liu et al., `Towards Efficient and Scalable Sharpness-Aware Minimization <https://arxiv.org/abs/2203.02714>`_, 2022.
    """
    arguments.check_integer('k', k, at_least=1)
    arguments.check_number('alpha', alpha, at_least=0)

    def init_state(sam: ascent.SamState, params: optax.Params) -> LookSamState:
        return LookSamState(sam, jax.tree.map(numerics.wide_zeros_like, params))

    def ascend_every_kth(inputs: UpdateInputs, state: LookSamState) -> tuple[ascent.AscentResult, LookSamState]:
        def ascend() -> tuple[ascent.AscentResult, optax.Updates]:
            result = inputs.ascend()
            # g_p and g_p - g have the same orthogonal part; computed from the difference, it is exactly zero if g_p = g.
            difference = jax.tree.map(lambda p, g: numerics.wide(p) - numerics.wide(g), result.gradient, inputs.updates)
            orthogonal = ascent.orthogonal_part(difference, inputs.updates)
            valid = result.valid & numerics.all_finite(orthogonal)
            orthogonal = jax.tree.map(
                lambda new, old: jnp.where(valid, new, old).astype(old.dtype), orthogonal, state.orthogonal
            )
            return result, orthogonal

        if isinstance(k, int) and k == 1:
            result, orthogonal = ascend()
        else:
            result, orthogonal = jax.lax.cond(
                inputs.count % k == 0, ascend, lambda: (_reuse_orthogonal(inputs, state, alpha), state.orthogonal)
            )
        return result, state._replace(orthogonal=orthogonal)

    return sharpness_aware('looksam', rho, mask, ascend_every_kth, init_state=init_state)


def _reuse_orthogonal(inputs: UpdateInputs, state: LookSamState, alpha: float) -> ascent.AscentResult:
    """Returns the result of an update without an ascent: the gradient plus the stored orthogonal part, scaled to its norm."""
    gradient_norm = numerics.tree_norm(inputs.updates)
    orthogonal_norm = numerics.tree_norm(state.orthogonal)
    significant = orthogonal_norm > RELATIVE_ROUNDING_ERROR * gradient_norm
    scale = jnp.where(significant, jnp.float32(alpha) * numerics.safe_divide(gradient_norm, orthogonal_norm), 0)
    gradient = jax.tree.map(
        lambda g, v: (g.astype(v.dtype) + scale.astype(v.dtype) * v).astype(g.dtype), inputs.updates, state.orthogonal
    )
    return ascent.AscentResult(
        gradient=gradient,
        gradient_norm=numerics.tree_norm(masks.apply_mask(inputs.mask, inputs.params, inputs.updates)),
        perturbation_norm=jnp.zeros((), jnp.float32),
        valid=jnp.isfinite(gradient_norm),
        gradient_count=jnp.zeros((), jnp.int32),
    )


def rfn_looksam(
    rho: optax.ScalarOrSchedule = 0.4, *, k: int = 5, alpha: float = 0.7, mask: masks.Mask = None
) -> optax.GradientTransformationExtraArgs:
    """`looksam` in a large neighborhood, with the radius of `rfn_sam`.

    Arguments, result and errors are those of `looksam`.
    """
    return looksam(rho, k=k, alpha=alpha, mask=mask)

"""LookSAM: a climb every few steps, and its direction used again in between."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rfn_jax.core import numerics
from rfn_jax.optim import arguments, ascent, masks
from rfn_jax.optim.sharpness_aware import Call, sharpness_aware

RESOLUTION = 1e-6  # of float32, with a margin: an orthogonal part below this share of the gradient is rounding


class LookSamState(NamedTuple):
    """State of `looksam`.

    Attributes:
      sam: What every minimizer keeps; `perturbation_norm` is 0 after an update without a climb.
      orthogonal: Part of the last perturbed gradient that is orthogonal to the gradient, float32 or better.
    """

    sam: ascent.SamState
    orthogonal: optax.Updates


def looksam(
    rho: optax.ScalarOrSchedule = 0.05, *, k: int = 5, alpha: float = 0.7, mask: masks.Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""SAM that climbs at every k-th update only, and in between reuses what changes slowly.

    At updates 0, k, 2k, ... it returns the gradient :math:`g_p` of `sam`, and keeps its part orthogonal to the gradient,
    :math:`g_v = g_p - \frac{\langle g_p, g \rangle}{\|g\|_2^2} g`. At the others it returns

    .. math::
      g + \alpha \frac{\|g\|_2}{\|g_v\|_2} g_v

    The climb is in a `lax.cond`, so that the others cost one gradient each. (On the CPU, gradients of convolutions inside
    `lax.cond` are slow, except in the models of this library.)

    Args:
      rho: Radius of the ascent, a number or a schedule; see `sam`.
      k: Updates from one climb to the next, at least 1; 1 is `sam`.
      alpha: :math:`\alpha`, at least 0; 0.7 in the paper.
      mask: Which parameters are perturbed; see `sam`. The decomposition is over all of them.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose `update` needs `params` and `grad_fn`; see `sam`.

    Raises:
      ValueError: `rho` or `alpha` is negative or not finite, or `k` is below 1; or as `sam`.
      TypeError: As `sam`.

    References:
      Liu et al., `Towards Efficient and Scalable Sharpness-Aware Minimization <https://arxiv.org/abs/2203.02714>`_, 2022.
    """
    arguments.check_integer('k', k, at_least=1)
    arguments.check_number('alpha', alpha, at_least=0)

    def nothing_kept(sam: ascent.SamState, params: optax.Params) -> LookSamState:
        return LookSamState(sam, jax.tree.map(ascent.wide_zeros_like, params))

    def every_kth(call: Call, state: LookSamState) -> tuple[ascent.Climb, LookSamState]:
        def climb() -> tuple[ascent.Climb, optax.Updates]:
            climbed = call.climb()
            # g_p and g_p - g have the same orthogonal part; the difference makes it exactly zero where g_p = g.
            difference = jax.tree.map(lambda p, g: numerics.wide(p) - numerics.wide(g), climbed.gradient, call.updates)
            orthogonal = ascent.orthogonal_part(difference, call.updates)
            found = climbed.valid & numerics.all_finite(orthogonal)
            orthogonal = jax.tree.map(
                lambda new, old: jnp.where(found, new, old).astype(old.dtype), orthogonal, state.orthogonal
            )
            return climbed, orthogonal

        if isinstance(k, int) and k == 1:
            climbed, orthogonal = climb()
        else:
            climbed, orthogonal = jax.lax.cond(
                call.count % k == 0, climb, lambda: (_reuse(call, state, alpha), state.orthogonal)
            )
        return climbed, state._replace(orthogonal=orthogonal)

    return sharpness_aware('looksam', rho, mask, every_kth, memory=nothing_kept)


def _reuse(call: Call, state: LookSamState, alpha: float) -> ascent.Climb:
    """An update without a climb: the gradient, and the orthogonal part that was kept, scaled to its length."""
    gradient_norm = numerics.tree_norm(call.updates)
    size = numerics.tree_norm(state.orthogonal)
    meaningful = size > RESOLUTION * gradient_norm
    scale = jnp.where(meaningful, jnp.float32(alpha) * numerics.safe_divide(gradient_norm, size), 0)
    gradient = jax.tree.map(
        lambda g, v: (g.astype(v.dtype) + scale.astype(v.dtype) * v).astype(g.dtype), call.updates, state.orthogonal
    )
    return ascent.Climb(
        gradient=gradient,
        gradient_norm=numerics.tree_norm(masks.keep_masked(call.mask, call.params, call.updates)),
        perturbation_norm=jnp.zeros((), jnp.float32),
        valid=jnp.isfinite(gradient_norm),
        evaluations=jnp.zeros((), jnp.int32),
    )


def rfn_looksam(
    rho: optax.ScalarOrSchedule = 0.4, *, k: int = 5, alpha: float = 0.7, mask: masks.Mask = None
) -> optax.GradientTransformationExtraArgs:
    """`looksam` in a large neighborhood: the radius of `rfn_sam`.

    Arguments, result and errors are those of `looksam`.
    """
    return looksam(rho, k=k, alpha=alpha, mask=mask)

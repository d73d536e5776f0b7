"""The ascent step of all sharpness-aware minimizers: perturb the parameters, evaluate the gradient, and record metrics.

Notation: `w` parameters, `g` their gradient, `e` a perturbation; all are pytrees of the same structure.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike
from optax import tree_utils

from rfn_jax.core import errors, numerics
from rfn_jax.optim import masks, neighborhoods

GradientFunction = Callable[[optax.Params], optax.Updates]
Carry = tuple[optax.Updates, optax.Updates, jax.Array]  # e, the gradient at w + e, and whether all steps were valid


class SamState(NamedTuple):
    """State of every sharpness-aware minimizer; read a field with `optax.tree.get(opt_state, 'perturbation_norm')`.

    Attributes:
      count: Number of updates so far, int32; it saturates. The argument of a `rho` schedule.
      ascent_count: Number of gradients evaluated at perturbed parameters (including skipped perturbations), int32; it
        saturates.
      skipped_count: Number of updates whose perturbation was skipped because a gradient or the radius was not finite (or
        the radius was negative), int32; it saturates. If the gradient at the perturbed parameters is not finite, the
        minimizer returns zeros.
      gradient_norm: L2 norm, at the last update, of the gradient with respect to the parameters that the mask selects,
        float32.
      perturbation_norm: L2 norm of the last perturbation, after rounding to the type of the parameters, float32; 0 if it
        was skipped.
    """

    count: jax.Array  # type: ignore[assignment]  # hides the method of tuples, as in the states of optax
    ascent_count: jax.Array
    skipped_count: jax.Array
    gradient_norm: jax.Array
    perturbation_norm: jax.Array


def initial_state() -> SamState:
    """Returns the state before the first update."""

    def zero(dtype: DTypeLike) -> jax.Array:
        return jnp.zeros((), dtype)

    return SamState(zero(jnp.int32), zero(jnp.int32), zero(jnp.int32), zero(jnp.float32), zero(jnp.float32))


class AscentResult(NamedTuple):
    """The result of `ascend`.

    Attributes:
      gradient: Gradient at the perturbed parameters, with the types of the gradient at `w`.
      gradient_norm: See `SamState`.
      perturbation_norm: See `SamState`.
      valid: Whether the radius and the directions of all steps were finite (and the radius not negative); a step for which
        they were not is zero.
      gradient_count: Number of gradients evaluated at perturbed parameters, int32.
    """

    gradient: optax.Updates
    gradient_norm: jax.Array
    perturbation_norm: jax.Array
    valid: jax.Array
    gradient_count: jax.Array


def ascend(
    grad_fn: GradientFunction,
    params: optax.Params,
    updates: optax.Updates,
    radius: ArrayLike,
    *,
    mask: masks.Mask = None,
    neighborhood: neighborhoods.Neighborhood = neighborhoods.ball,
    direction: optax.Updates | None = None,
    steps: ArrayLike = 1,
) -> AscentResult:
    r"""Takes K ascent steps :math:`e \leftarrow e + \frac{\rho}{K} N(w, d)` and evaluates the gradient at :math:`w + e`.

    Args:
      grad_fn: Gradient function of parameters.
      params: The parameters w.
      updates: Their gradient g.
      radius: :math:`\rho`.
      mask: Which parameters are perturbed.
      neighborhood: N; see `rfn_jax.optim.neighborhoods`.
      direction: d of the first step; `updates` by default. For each later step, d is the gradient at the current
        :math:`w + e`.
      steps: K.

    Returns:
      An `AscentResult`.
    """
    masked_updates = masks.apply_mask(mask, params, updates)
    direction = masked_updates if direction is None else masks.apply_mask(mask, params, direction)
    radius = jnp.asarray(radius, jnp.float32) / steps
    radius_is_valid = jnp.isfinite(radius) & (radius >= 0)

    def scaled_step(direction: optax.Updates) -> tuple[optax.Updates, jax.Array]:
        valid = radius_is_valid & jnp.isfinite(numerics.tree_norm(direction))
        unit = neighborhood(params, direction)
        return jax.tree.map(lambda u: jnp.where(valid, radius.astype(u.dtype) * u, 0), unit), valid

    def perturbed(e: optax.Updates) -> optax.Params:
        return jax.tree.map(lambda w, e: (w.astype(e.dtype) + e).astype(w.dtype), params, e)

    def gradient_at(e: optax.Updates) -> optax.Updates:
        gradient = grad_fn(perturbed(e))
        structure: object = jax.tree.structure(gradient)
        if structure != jax.tree.structure(updates):
            raise errors.InputError(
                f'grad_fn must return a gradient with the structure of params, {jax.tree.structure(updates)}; it '
                f'returned {structure} (jax.value_and_grad and has_aux=True return more than the gradient)'
            )
        shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (gradient, updates)]
        if shapes[0] != shapes[1]:
            raise errors.InputError(
                f'grad_fn must return a gradient with the shapes of params, {shapes[1]}, got {shapes[0]}'
            )
        return tree_utils.tree_cast_like(gradient, updates)

    def step(_: jax.Array, carry: Carry) -> Carry:
        e, gradient, valid = carry
        increment, step_valid = scaled_step(masks.apply_mask(mask, params, gradient))
        e = jax.tree.map(jnp.add, e, increment)
        return e, gradient_at(e), valid & step_valid

    e, valid = scaled_step(direction)
    carry = (e, gradient_at(e), valid)
    if not (isinstance(steps, int) and steps == 1):
        carry = jax.lax.fori_loop(1, steps, step, carry)
    e, gradient, valid = carry
    return AscentResult(
        gradient=gradient,
        gradient_norm=numerics.tree_norm(masked_updates),
        perturbation_norm=numerics.tree_norm(jax.tree.map(_applied_perturbation, params, perturbed(e), e)),
        valid=valid,
        gradient_count=jnp.asarray(steps, jnp.int32),
    )


def finish_update(state: SamState, result: AscentResult) -> tuple[optax.Updates, SamState]:
    """Returns the gradient to descend along, which is always finite, and the next state.

    To fall back on the gradient at the unperturbed parameters instead of zeros, that gradient would have to be kept during
    the second evaluation, at the cost of one more copy of the parameters in peak memory.

    Args:
      state: The state before this update.
      result: The result of the ascent, with the gradient that the method descends along.

    Returns:
      That gradient if it is finite and zeros otherwise; and the next state.
    """
    finite = numerics.all_finite(result.gradient)
    descent_gradient = jax.tree.map(lambda g: jnp.where(finite, g, jnp.zeros_like(g)), result.gradient)
    skipped = jnp.logical_not(result.valid & finite)
    return descent_gradient, SamState(
        count=optax.safe_increment(state.count),
        ascent_count=_saturating_add(state.ascent_count, result.gradient_count),
        skipped_count=_saturating_add(state.skipped_count, skipped.astype(jnp.int32)),
        gradient_norm=result.gradient_norm,
        perturbation_norm=jnp.where(finite, result.perturbation_norm, 0),
    )


def orthogonal_part(tree: optax.Updates, direction: optax.Updates) -> optax.Updates:
    r"""Returns the part of a tree that is orthogonal to a direction, :math:`x - \langle x, u \rangle u` with
    :math:`u = d / \|d\|_2`, in float32; if the direction is zero, this is the tree itself."""
    unit = neighborhoods.ball(direction, direction)
    coefficient = numerics.tree_vdot(tree, unit)
    return jax.tree.map(lambda x, u: x.astype(u.dtype) - coefficient.astype(u.dtype) * u, tree, unit)


def _applied_perturbation(w: jax.Array, perturbed: jax.Array, e: jax.Array) -> jax.Array:
    """Returns the actual change of a parameter; low-precision types round small perturbations away."""
    return e if w.dtype == e.dtype else perturbed.astype(e.dtype) - w.astype(e.dtype)


def _saturating_add(count: jax.Array, increment: jax.Array) -> jax.Array:
    return jnp.where(count > jnp.iinfo(jnp.int32).max - increment, jnp.iinfo(jnp.int32).max, count + increment)

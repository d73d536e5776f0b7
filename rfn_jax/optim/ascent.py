"""What all sharpness-aware minimizers share: a climb to a point nearby, the gradient there, and what is noted of it.

Letters: `w` parameters, `g` their gradient, `e` a perturbation; pytrees of one structure.
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
Carry = tuple[optax.Updates, optax.Updates, jax.Array]  # the perturbation, the gradient there, and whether it is valid


class SamState(NamedTuple):
    """What every sharpness-aware minimizer keeps; read it with `optax.tree.get(opt_state, 'perturbation_norm')`.

    Attributes:
      count: Number of updates so far, int32; it saturates. The argument of a `rho` schedule.
      ascent_count: Number of gradients evaluated at perturbed parameters (also where the perturbation was skipped), int32;
        it saturates.
      skipped_count: Number of updates without a perturbation, since a gradient or the radius was not finite (or the
        radius negative), int32; it saturates. Where the gradient at the perturbed parameters is not finite, zeros are
        returned.
      gradient_norm: L2 norm of the gradient of the perturbed parameters at the last update, float32.
      perturbation_norm: L2 norm of what the last perturbation moved, after rounding to the type of the parameters,
        float32; 0 where it was skipped.
    """

    count: jax.Array  # type: ignore[assignment]  # hides the method of tuples, as in the states of optax
    ascent_count: jax.Array
    skipped_count: jax.Array
    gradient_norm: jax.Array
    perturbation_norm: jax.Array


def initial_state() -> SamState:
    """The state before the first update."""

    def zero(dtype: DTypeLike) -> jax.Array:
        return jnp.zeros((), dtype)

    return SamState(zero(jnp.int32), zero(jnp.int32), zero(jnp.int32), zero(jnp.float32), zero(jnp.float32))


class Climb(NamedTuple):
    """The result of `climb`.

    Attributes:
      gradient: Gradient at the perturbed parameters, with the types of the gradient at `w`.
      gradient_norm: See `SamState`.
      perturbation_norm: See `SamState`.
      valid: Whether directions and radius were finite; without it the perturbation is zero.
      evaluations: Number of gradients evaluated at perturbed parameters, int32.
    """

    gradient: optax.Updates
    gradient_norm: jax.Array
    perturbation_norm: jax.Array
    valid: jax.Array
    evaluations: jax.Array


def climb(
    grad_fn: GradientFunction,
    params: optax.Params,
    updates: optax.Updates,
    radius: ArrayLike,
    *,
    mask: masks.Mask = None,
    neighborhood: neighborhoods.Neighborhood = neighborhoods.ball,
    direction: optax.Updates | None = None,
    steps: ArrayLike = 1,
) -> Climb:
    r"""Climbs by `steps` steps, each :math:`e \leftarrow e + \frac{\rho}{K} N(w, d)`, and takes the gradient at the top.

    Args:
      grad_fn: Gradient function of parameters.
      params: The parameters w.
      updates: Their gradient g.
      radius: :math:`\rho`.
      mask: Which parameters are perturbed.
      neighborhood: N; see `rfn_jax.optim.neighborhoods`.
      direction: d of the first step; None for `updates`. The others go along the gradient where they are.
      steps: K.

    Returns:
      A `Climb`.
    """
    kept = masks.keep_masked(mask, params, updates)
    direction = kept if direction is None else masks.keep_masked(mask, params, direction)
    radius = jnp.asarray(radius, jnp.float32) / steps
    radius_is_valid = jnp.isfinite(radius) & (radius >= 0)

    def stride(direction: optax.Updates) -> tuple[optax.Updates, jax.Array]:
        valid = radius_is_valid & jnp.isfinite(numerics.tree_norm(direction))
        unit = neighborhood(params, direction)
        return jax.tree.map(lambda u: jnp.where(valid, radius.astype(u.dtype) * u, 0), unit), valid

    def perturbed(e: optax.Updates) -> optax.Params:
        return jax.tree.map(lambda w, e: (w.astype(e.dtype) + e).astype(w.dtype), params, e)

    def gradient_at(e: optax.Updates) -> optax.Updates:
        gradient = grad_fn(perturbed(e))
        found: object = jax.tree.structure(gradient)
        if found != jax.tree.structure(updates):
            raise errors.InputError(
                f'grad_fn must return a gradient with the structure of params, {jax.tree.structure(updates)}; it '
                f'returned {found} (jax.value_and_grad and has_aux=True return more than that)'
            )
        shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (gradient, updates)]
        if shapes[0] != shapes[1]:
            raise errors.InputError(
                f'grad_fn must return a gradient with the shapes of params, {shapes[1]}, got {shapes[0]}'
            )
        return tree_utils.tree_cast_like(gradient, updates)

    def step(_: jax.Array, carry: Carry) -> Carry:
        e, gradient, valid = carry
        more, valid_here = stride(masks.keep_masked(mask, params, gradient))
        e = jax.tree.map(jnp.add, e, more)
        return e, gradient_at(e), valid & valid_here

    e, valid = stride(direction)
    carry = (e, gradient_at(e), valid)
    if not (isinstance(steps, int) and steps == 1):
        carry = jax.lax.fori_loop(1, steps, step, carry)
    e, gradient, valid = carry
    return Climb(
        gradient=gradient,
        gradient_norm=numerics.tree_norm(kept),
        perturbation_norm=numerics.tree_norm(jax.tree.map(_moved, params, perturbed(e), e)),
        valid=valid,
        evaluations=jnp.asarray(steps, jnp.int32),
    )


def settle(state: SamState, climbed: Climb) -> tuple[optax.Updates, SamState]:
    """The gradient that a minimizer returns, always finite, and its next state.

    Falling back on the gradient at the parameters instead of zeros would keep it alive through the second evaluation: one
    more copy of the parameters at the peak.

    Args:
      state: The state before.
      climbed: The climb of this update, with the gradient that the method asks for.

    Returns:
      That gradient if it is finite, else zeros; and the state.
    """
    usable = numerics.all_finite(climbed.gradient)
    chosen = jax.tree.map(lambda c: jnp.where(usable, c, jnp.zeros_like(c)), climbed.gradient)
    skipped = jnp.logical_not(climbed.valid & usable)
    return chosen, SamState(
        count=optax.safe_increment(state.count),
        ascent_count=_saturating_add(state.ascent_count, climbed.evaluations),
        skipped_count=_saturating_add(state.skipped_count, skipped.astype(jnp.int32)),
        gradient_norm=climbed.gradient_norm,
        perturbation_norm=jnp.where(usable, climbed.perturbation_norm, 0),
    )


def wide_zeros_like(w: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    """Zeros of the shape of a parameter, float32 or better."""
    return jnp.zeros_like(w, dtype=numerics.wide_dtype(w.dtype))


def orthogonal_part(tree: optax.Updates, direction: optax.Updates) -> optax.Updates:
    r"""The part of a tree that is orthogonal to a direction, :math:`x - \langle x, u \rangle u` with
    :math:`u = d / \|d\|_2`, in float32; the tree itself where the direction is zero."""
    unit = neighborhoods.ball(direction, direction)
    along = numerics.tree_vdot(tree, unit)
    return jax.tree.map(lambda x, u: x.astype(u.dtype) - along.astype(u.dtype) * u, tree, unit)


def _moved(w: jax.Array, top: jax.Array, e: jax.Array) -> jax.Array:
    """How far a parameter moved: narrow types round small perturbations away."""
    return e if w.dtype == e.dtype else top.astype(e.dtype) - w.astype(e.dtype)


def _saturating_add(count: jax.Array, more: jax.Array) -> jax.Array:
    return jnp.where(count > jnp.iinfo(jnp.int32).max - more, jnp.iinfo(jnp.int32).max, count + more)

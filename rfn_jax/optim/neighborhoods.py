r"""Neighborhoods of the weights, each given by its point at which a linear function is largest.

A neighborhood is a function from the parameters :math:`w` and a direction :math:`d`, usually the gradient, to

.. math:: \arg\max_{e \in N(w)} \langle d, e \rangle

for a set :math:`N(w)` of radius 1; the minimizers multiply the result by `rho`. If `d` is zero, so is the result. All
computations and results are in float32 whatever the type of the parameters (in float64 for float64 parameters).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from rfn_jax.core import checks, numerics

Neighborhood = Callable[[optax.Params, optax.Updates], optax.Updates]


def ball(params: optax.Params, direction: optax.Updates) -> optax.Updates:
    r"""A single L2 ball over all parameters: :math:`d / \|d\|_2` (SAM)."""
    del params
    norm = numerics.tree_norm(direction)
    return jax.tree.map(
        lambda d: numerics.safe_divide(numerics.wide(d), norm.astype(numerics.wide(d).dtype)), direction
    )


def layer_balls(params: optax.Params, direction: optax.Updates) -> optax.Updates:
    r"""An L2 ball for each array of parameters: :math:`d_l / \|d_l\|_2`."""
    return jax.tree.map(ball, params, direction)


def relative_layer_balls(params: optax.Params, direction: optax.Updates) -> optax.Updates:
    r"""An L2 ball for each array, with the norm of the array as its radius: :math:`\|w_l\|_2 \, d_l / \|d_l\|_2`.

    Source: the layer-wise scaling of Look-LayerSAM, Liu et al. 2022 (arXiv 2203.02714).
    """
    return jax.tree.map(lambda w, u: numerics.tree_norm(w).astype(u.dtype) * u, params, layer_balls(params, direction))


def scaled_ball(eta: float) -> Neighborhood:
    r"""A ball that measures each weight relative to its size: :math:`T^2 d / \|T d\|_2` with :math:`T = |w| + \eta`.

    Source: Kwon et al. 2021 (arXiv 2102.11600), ASAM.
    """

    def neighborhood(params: optax.Params, direction: optax.Updates) -> optax.Updates:
        scale = jax.tree.map(
            lambda w: jnp.abs(numerics.wide(w)) + jnp.asarray(eta, numerics.wide_dtype(w.dtype)), params
        )
        unit = ball(params, jax.tree.map(lambda t, d: t * numerics.wide(d), scale, direction))
        return jax.tree.map(jnp.multiply, scale, unit)

    return neighborhood


NORMS = {'global': ball, 'layer': layer_balls, 'relative': relative_layer_balls}


def from_name(norm: str) -> Neighborhood:
    """Returns the neighborhood with the given name in `NORMS`.

    Raises:
      InputError: The name is unknown.
    """
    return NORMS[checks.one_of('norm', norm, NORMS)]

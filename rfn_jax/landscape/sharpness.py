r"""How much a mean loss rises in a neighborhood of the weights: in the worst case, and on average.

The neighborhood is a ball of radius :math:`\rho`, or one that measures each weight relative to its size; see
`optim.neighborhoods`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax.core import checks
from rfn_jax.landscape import curvature
from rfn_jax.landscape import mean_loss as mean_loss_lib
from rfn_jax.optim import neighborhoods, random_trees


def worst_case_sharpness(
    loss: mean_loss_lib.MeanLoss,
    params: mean_loss_lib.Params,
    key: jax.Array,
    *,
    rho: float,
    steps: int = 20,
    restarts: int = 2,
    neighborhood: neighborhoods.Neighborhood = neighborhoods.ball,
) -> float:
    r"""Searches the largest rise of the loss, :math:`\max_{e \in \rho N(w)} L(w + e) - L(w)`, by gradient ascent.

    Each step goes halfway to the point of the neighborhood that is farthest along the gradient (the Frank-Wolfe method):

    .. math:: v_t = \rho\, n(\nabla L(w + e_t)), \qquad e_{t+1} = \tfrac12 (e_t + v_t) .

    The first search starts at the weights, where :math:`v_0` is the perturbation of SAM, and the others at random points. The
    result is the largest rise at any of these points, at least 0: a lower bound of the maximum.

    Args:
      loss: The loss.
      params: The weights.
      key: Key of the random starts.
      rho: Radius, at least 0.
      steps: Number of steps of each search, at least 1.
      restarts: Number of searches, at least 1.
      neighborhood: The neighborhood of radius 1: a ball by default.

    Raises:
      InputError: A number is out of range.
    """
    checks.number('rho', rho, at_least=0)
    checks.integer('steps', steps, at_least=1)
    keys = jax.random.split(key, checks.integer('restarts', restarts, at_least=1))
    found = [_search(loss, params, one, rho, steps, neighborhood, number > 0) for number, one in enumerate(keys)]
    return float(np.max([float(rise) for rise in found]))


def average_sharpness(
    loss: mean_loss_lib.MeanLoss,
    params: mean_loss_lib.Params,
    key: jax.Array,
    *,
    rho: float,
    samples: int = 30,
    neighborhood: neighborhoods.Neighborhood = neighborhoods.ball,
) -> curvature.Estimate:
    """Estimates the mean rise of the loss at distance `rho` in random directions.

    Args:
      loss: The loss.
      params: The weights.
      key: Key of the directions.
      rho: Radius, at least 0.
      samples: Number of directions, at least 1.
      neighborhood: The neighborhood of radius 1, on whose boundary the points are: a ball by default.

    Raises:
      InputError: A number is out of range.
    """
    checks.number('rho', rho, at_least=0)
    checks.integer('samples', samples, at_least=1)
    return curvature.estimate(np.asarray(_rises(loss, params, jax.random.split(key, samples), rho, neighborhood)))


def _moved(params: mean_loss_lib.Params, change: mean_loss_lib.Params) -> mean_loss_lib.Params:
    return jax.tree.map(lambda w, e: w + e.astype(w.dtype), params, change)


def _random_point(
    params: mean_loss_lib.Params, key: jax.Array, rho: jax.Array, neighborhood: neighborhoods.Neighborhood
) -> mean_loss_lib.Params:
    direction = random_trees.draw(params, key, lambda key, w: jax.random.normal(key, w.shape, w.dtype))
    return jax.tree.map(lambda n: rho * n, neighborhood(params, direction))


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _search(
    loss: mean_loss_lib.MeanLoss,
    params: mean_loss_lib.Params,
    key: jax.Array,
    rho: jax.Array,
    steps: int,
    neighborhood: neighborhoods.Neighborhood,
    random_start: bool,
) -> jax.Array:
    def step(point: mean_loss_lib.Params, _: None) -> tuple[mean_loss_lib.Params, jax.Array]:
        gradient = loss.gradient(_moved(params, point))
        farthest = jax.tree.map(lambda n: rho * n, neighborhood(params, gradient))
        point = jax.tree.map(lambda e, v: (e + v) / 2, point, farthest)
        return point, jnp.maximum(loss(_moved(params, farthest)), loss(_moved(params, point)))

    start = _random_point(params, key, rho, neighborhood)
    if not random_start:
        start = jax.tree.map(jnp.zeros_like, start)
    _, losses = jax.lax.scan(step, start, None, length=steps)
    here = loss(params)
    return jnp.maximum(jnp.max(losses), here) - here


@functools.partial(jax.jit, static_argnums=4)
def _rises(
    loss: mean_loss_lib.MeanLoss,
    params: mean_loss_lib.Params,
    keys: jax.Array,
    rho: jax.Array,
    neighborhood: neighborhoods.Neighborhood,
) -> jax.Array:
    here = loss(params)
    return jax.lax.map(lambda key: loss(_moved(params, _random_point(params, key, rho, neighborhood))) - here, keys)

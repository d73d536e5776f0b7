"""The spectrum of the Hessian of a mean loss: its largest eigenvalues, its trace, and its density.

Axes: `P` parameters, `m` Lanczos steps, `s` random vectors.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matfree import decomp

from rfn_jax.core import checks, numerics
from rfn_jax.landscape import mean_loss as mean_loss_lib

BREAKDOWN = 1e-5  # of the largest entry so far: a smaller next one is a rounding error


class Eigenvalues(NamedTuple):
    """Eigenvalues of a Hessian.

    Attributes:
      values: The largest ones, in decreasing order, `[count]`; fewer if the Hessian has fewer that are not 0.
      errors: For each, a bound of the distance to an exact eigenvalue, `[count]`: the norm of the residual of its vector.
    """

    values: np.ndarray
    errors: np.ndarray


class Estimate(NamedTuple):
    """A mean over random draws.

    Attributes:
      mean: The mean.
      standard_error: Its standard error; NaN for a single draw.
    """

    mean: float
    standard_error: float


class Density(NamedTuple):
    r"""The spectral density of a Hessian, as point masses :math:`\sum_{ij} \omega_{ij} \delta(\lambda - \lambda_{ij})`.

    Attributes:
      nodes: The eigenvalues at which there is mass, `[s, m]`.
      weights: The masses, `[s, m]`, which sum up to 1.
    """

    nodes: np.ndarray
    weights: np.ndarray

    def smoothed(self, grid: np.ndarray, width: float) -> np.ndarray:
        """Returns the density at the points of a grid, with each mass spread by a Gaussian of standard deviation `width`."""
        shape = np.exp(-(((np.asarray(grid)[:, None] - self.nodes.ravel()) / width) ** 2) / 2)
        return shape @ self.weights.ravel() / (width * np.sqrt(2 * np.pi))


def eigenvalues(
    loss: mean_loss_lib.MeanLoss, params: mean_loss_lib.Params, key: jax.Array, *, count: int = 1, steps: int = 30
) -> Eigenvalues:
    """Returns the largest eigenvalues of the Hessian, by the Lanczos method with full reorthogonalization.

    Args:
      loss: The loss.
      params: Where to compute the Hessian, P parameters.
      key: Key of the first vector.
      count: How many eigenvalues, at least 1.
      steps: m, the number of Hessian-vector products, at least `count` and at most P. All m vectors of P numbers are kept.

    Raises:
      InputError: A number is out of range.
    """
    checks.integer('count', count, at_least=1)
    checks.integer('steps', steps, at_least=count, at_most=_size(params))
    values, vectors, rest = _ritz(loss, params, key, steps)
    largest = np.argsort(values)[::-1][:count]
    return Eigenvalues(values[largest], np.abs(rest * vectors[-1, largest]))


def trace(loss: mean_loss_lib.MeanLoss, params: mean_loss_lib.Params, key: jax.Array, *, samples: int = 30) -> Estimate:
    r"""Estimates the trace of the Hessian by Hutchinson's method: the mean of :math:`v^\top H v` over random signs v.

    Args:
      loss, params, key: As for `eigenvalues`.
      samples: Number of Hessian-vector products, at least 1.

    Raises:
      InputError: `samples` is below 1.
    """
    checks.integer('samples', samples, at_least=1)
    return estimate(np.asarray(_products(loss, params, jax.random.split(key, samples))))


def density(
    loss: mean_loss_lib.MeanLoss, params: mean_loss_lib.Params, key: jax.Array, *, steps: int = 30, samples: int = 3
) -> Density:
    """Estimates the spectral density of the Hessian by stochastic Lanczos quadrature.

    Args:
      loss, params, key, steps: As for `eigenvalues`; there are m steps for each vector.
      samples: s, the number of random vectors, at least 1.

    Raises:
      InputError: A number is out of range.

    References:
      Ghorbani et al., `An Investigation into Neural Net Optimization via Hessian Eigenvalue Density
      <https://arxiv.org/abs/1901.10159>`_, 2019.
    """
    checks.integer('steps', steps, at_least=1, at_most=_size(params))
    checks.integer('samples', samples, at_least=1)
    nodes, weights = np.zeros((2, samples, steps))
    for row, one in enumerate(jax.random.split(key, samples)):
        values, vectors, _ = _ritz(loss, params, one, steps)
        nodes[row, : len(values)], weights[row, : len(values)] = values, vectors[0] ** 2 / samples
    return Density(nodes, weights)


def estimate(draws: np.ndarray) -> Estimate:
    """The mean of independent draws, and its standard error."""
    count = len(draws)
    error = np.std(draws, ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return Estimate(float(np.mean(draws)), float(error))


def _ritz(
    loss: mean_loss_lib.MeanLoss, params: mean_loss_lib.Params, key: jax.Array, steps: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """The eigenvalues `[m]` and eigenvectors `[m, m]` of the tridiagonal matrix, and the norm of what it leaves out.

    If the vectors are exhausted after fewer steps, as for a Hessian of low rank, the matrix ends there: what follows would be
    rounding errors.
    """
    tridiagonal, rest = jax.device_get(_tridiagonal(loss, params, key, steps))
    tridiagonal = np.asarray(tridiagonal, np.float64)
    size, beside = steps, float(rest)
    largest = 0.0
    for row in range(steps - 1):
        largest = max(largest, abs(tridiagonal[row, row]))
        following = abs(tridiagonal[row, row + 1])
        if not following > BREAKDOWN * largest:  # also for NaN
            size, beside = row + 1, 0.0
            break
        largest = max(largest, following)
    values, vectors = np.linalg.eigh(tridiagonal[:size, :size])
    return values, vectors, beside


@functools.partial(jax.jit, static_argnums=3)
def _tridiagonal(
    loss: mean_loss_lib.MeanLoss, params: mean_loss_lib.Params, key: jax.Array, steps: int
) -> tuple[jax.Array, jax.Array]:
    """The tridiagonal matrix `[m, m]` of m Lanczos steps, and the norm of the next vector."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def product(vector: jax.Array) -> jax.Array:
        return jax.flatten_util.ravel_pytree(loss.hvp(params, unravel(vector)))[0]

    start = jax.random.normal(key, flat.shape, flat.dtype)
    _, tridiagonal, rest, _ = decomp.tridiag_sym(steps, custom_vjp=False)(product, start)
    return tridiagonal, jnp.linalg.norm(rest)


@jax.jit
def _products(loss: mean_loss_lib.MeanLoss, params: mean_loss_lib.Params, keys: jax.Array) -> jax.Array:
    """v^T H v for random signs v from each key, `[samples]`."""

    def product(key: jax.Array) -> jax.Array:
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        signs = [jax.random.rademacher(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
        vector = jax.tree.unflatten(structure, signs)
        return numerics.tree_vdot(vector, loss.hvp(params, vector))

    return jax.lax.map(product, keys)


def _size(params: mean_loss_lib.Params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))

"""Helpers for the tests of all minimizers: their names, one compiled update for each, and a recorder of perturbed weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems

from rfn_jax import optim

NAMES = [name for name in optim.MINIMIZERS if name != 'sgd']
METHODS = [name for name in NAMES if not name.startswith('rfn_')]  # a preset is its method with another default of rho
# Methods whose perturbation has length rho.
LENGTH_IS_RHO = ('sam', 'rfn_sam', 'gsam', 'looksam', 'friendly_sam', 'random_sam')
RHO = 0.3


def method_of(name):
    """The name that messages use: for a preset too, that of its method (rfn_sam has its own)."""
    return name if name == 'rfn_sam' else name.removeprefix('rfn_')


def make(name, rho=RHO, **options):
    return optim.MINIMIZERS[name](rho, **options)


def injected(name, rho=RHO, *, static=(), **options):
    static = (*static, 'mask', *(['gamma'] if 'esam' in name else []))
    return optax.inject_hyperparams(optim.MINIMIZERS[name], static_args=static)(rho, **options)


def quick(name):
    """Options for an update that is not compiled: `looksam` without its cond, which would be compiled again at every call."""
    return {'k': 1} if 'looksam' in name else {}


def kept_examples(name):
    """The examples that esam with gamma = 0.5 keeps if no loss increases: the first half of the batch; None for others."""
    return jnp.arange(problems.B // 2) if 'esam' in name else None


def extra_args(problem):
    """The extra arguments of `update`, for any minimizer."""
    gradient, losses = problem.jitted
    return {'grad_fn': gradient, 'losses_fn': losses}


class Recorder:
    """A gradient function that records the parameters it was called with."""

    def __init__(self, problem):
        self.gradient, self.seen = problem.jitted[0], []

    def __call__(self, params, examples=None):
        self.seen.append(params)
        return self.gradient(params, examples)


def ascend(name, problem, **options):
    """One update: the perturbed parameters, the updates, and the state."""
    tx, recorder = make(name, **quick(name), **options), Recorder(problem)
    arguments = extra_args(problem) | {'grad_fn': recorder}
    updates, state = tx.update(recorder.gradient(problem.params), tx.init(problem.params), problem.params, **arguments)
    return recorder.seen[-1], updates, state


@functools.cache
def compiled(name):
    """One compiled update of `convex` for many tests.

    Returns:
      The minimizer with injected hyperparameters; `update(params, state, batch, at_params, at_perturbed)`, where the gradient
      at the parameters is multiplied by `at_params` and that at the perturbed parameters by `at_perturbed`; and a list that
      grows whenever `update` is traced.
    """
    tx, traces = injected(name), []

    @jax.jit
    def update(params, state, batch, at_params, at_perturbed):
        traces.append(None)
        problem = problems.Problem(params, batch, problems.convex().losses_on)

        def times(gradient, factor):
            return jax.tree.map(lambda g: g * factor, gradient)

        return tx.update(
            times(problem.grad_fn(params), at_params),
            state,
            params,
            grad_fn=lambda params, examples=None: times(problem.grad_fn(params, examples), at_perturbed),
            losses_fn=problem.losses,
            unknown=1.0,
        )

    def call(params, state, *, batch=None, at_params=1.0, at_perturbed=1.0):
        return update(params, state, problems.convex().batch if batch is None else batch, at_params, at_perturbed)

    return tx, call, traces


def sam_state(state):
    """The `SamState` in the state of any optimizer."""

    def is_one(leaf):
        return isinstance(leaf, optim.SamState)

    (found,) = filter(is_one, jax.tree.leaves(state, is_leaf=is_one))
    return found


def distance(a, b):
    """L2 norm of the difference of two trees, in float64."""
    squares = jax.tree.map(lambda x, y: np.sum((np.asarray(x, np.float64) - np.asarray(y, np.float64)) ** 2), a, b)
    return float(np.sqrt(sum(jax.tree.leaves(squares))))


def assert_close(a, b, atol=1e-6, message=''):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol, err_msg=message), a, b)


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.all(np.isfinite(leaf))

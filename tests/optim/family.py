"""Helpers for the tests of all minimizers: their names, one compiled update for each, and single updates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import textbook

from rfn_jax import optim

NAMES = [name for name in optim.MINIMIZERS if name != 'sgd']
METHODS = [name for name in NAMES if not name.startswith('rfn_')]  # a preset is its method with another default of rho
LENGTH_IS_RHO = ('sam', 'gsam', 'looksam', 'friendly_sam', 'random_sam')  # whose perturbation has length rho
RHO = 0.3
AVERAGES = {'swa': optim.swa, 'ema': optim.ema}
CONVEX = problems.convex()


def make(name, rho=RHO, **options):
    return AVERAGES[name]() if name in AVERAGES else optim.MINIMIZERS[name](rho, **options)


def injected(name, rho=RHO, *, static=(), **options):
    static = (*static, 'mask', *(['gamma'] if name == 'esam' else []))
    return optax.inject_hyperparams(optim.MINIMIZERS[name], static_args=static)(rho, **options)


def quick(name):
    """Options for an update that is not compiled: `looksam` without its cond, which would be compiled again at every call."""
    return {'k': 1} if 'looksam' in name else {}


def kept_examples(name):
    """The examples that esam with gamma = 0.5 keeps if no loss increases: the first half of the batch; None for others."""
    return jnp.arange(problems.B // 2) if name == 'esam' else None


def extra_args(problem):
    """The extra arguments of `update`, for any minimizer."""
    gradient, losses = problem.jitted
    return {'grad_fn': gradient, 'losses_fn': losses}


def one_update(tx, params, gradient, *, grads=None, state=None, **extra_args):
    """One update, not compiled: the last point at which it evaluated the gradient, the updates, and the state."""
    seen = []

    def grad_fn(params, *examples):
        seen.append(params)
        return gradient(params, *examples)

    grads, state = gradient(params) if grads is None else grads, tx.init(params) if state is None else state
    updates, state = tx.update(grads, state, params, grad_fn=grad_fn, **extra_args)
    return seen[-1], updates, state


def ascend(name, problem, **options):
    """`one_update` of a minimizer at the start of a problem."""
    gradient, losses = problem.jitted
    return one_update(make(name, **quick(name) | options), problem.params, gradient, losses_fn=losses)


def perturbation(tx, problem, *, count=0, **options):
    """The perturbation of an update after `count` others, as a vector."""
    state, flat = tx.init(problem.params)._replace(count=jnp.int32(count)), textbook.Flat(problem)
    return flat.vector(one_update(tx, problem.params, problem.jitted[0], state=state, **options)[0]) - flat.start


def train(tx, problem, steps, *, compiled=True, change_state=lambda t, state: state, **changes):
    """The parameters, the updates and the state after each step; `change_state` acts before it."""
    arguments = extra_args(problem) | changes

    def update(g, state, params):
        return tx.update(g, state, params, **arguments)

    update = jax.jit(update) if compiled else update
    params, state, found = problem.params, tx.init(problem.params), []
    for t in range(steps):
        updates, state = update(problem.jitted[0](params), change_state(t, state), params)
        params = optax.apply_updates(params, updates)
        found.append((params, updates, state))
    return found


@functools.cache
def compiled(name):
    """One compiled update of `convex` for many tests.

    Returns:
      The minimizer with injected hyperparameters; `update(state, params, batch=..., at_params=..., at_perturbed=...)`, where
      the gradient at the parameters is multiplied by `at_params` and that at the perturbed parameters by `at_perturbed`; and
      a list that grows whenever `update` is traced.
    """
    tx, traces = injected(name), []

    @jax.jit
    def update(params, state, batch, at_params, at_perturbed):
        traces.append(None)
        problem = problems.Problem(params, batch, CONVEX.losses_on)

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

    def call(state, params=CONVEX.params, *, batch=CONVEX.batch, at_params=1.0, at_perturbed=1.0):
        return update(params, state, batch, at_params, at_perturbed)

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

import doctest
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfn_jax import optim
from rfn_jax.core import errors

PARAMS = {'w': jnp.arange(1.0, 5.0)}
NAMES = {'gradient_norm', 'perturbation_norm', 'ascent_count', 'skipped_count'}


def loss(params):
    return jnp.sum(params['w'] ** 2)


def after(tx, steps=2):
    state = tx.init(PARAMS)
    for _ in range(steps):
        _, state = tx.update(jax.grad(loss)(PARAMS), state, PARAMS, grad_fn=jax.grad(loss))
    return state


@pytest.mark.parametrize(
    'tx',
    [
        optim.rfn_sam(0.3),
        optim.friendly_sam(0.3, sigma=0.0),
        optim.looksam(0.3, k=1),
        optax.chain(optim.sam(0.3), optim.momentum_sgd(0.1, momentum=0.9, weight_decay=0.0)),
        optim.Optimizer(optim.sam(0.3), optax.sgd(0.1)),
        optax.chain(optax.inject_hyperparams(optim.sam, static_args='mask')(rho=0.3), optax.sgd(0.1)),
        optax.chain(optim.sam(0.3), optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()),
    ],
)
def test_metrics_are_found_at_any_depth_and_under_jit(tx):
    for found in (optim.diagnostics(after(tx)), jax.jit(optim.diagnostics)(after(tx))):
        assert found.keys() == NAMES
        np.testing.assert_allclose(found['perturbation_norm'], 0.3, rtol=1e-5)
        np.testing.assert_allclose(found['gradient_norm'], 2 * np.linalg.norm(PARAMS['w']), rtol=1e-5)
        assert (int(found['ascent_count']), int(found['skipped_count'])) == (2, 0)


def test_plain_sgd_has_no_metrics():
    assert optim.diagnostics(optax.sgd(0.1, momentum=0.9).init(PARAMS)) == {}


def test_two_minimizers_are_an_error():
    with pytest.raises(errors.InputError, match='must hold one sharpness-aware minimizer, but holds 2'):
        optim.diagnostics(optax.chain(optim.sam(), optim.sam()).init(PARAMS))


def test_the_example_of_the_docstring_runs():
    results = doctest.testmod(importlib.import_module('rfn_jax.optim.diagnostics'))
    assert results.attempted > 0
    assert results.failed == 0

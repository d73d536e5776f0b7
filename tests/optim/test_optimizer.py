import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfn_jax import optim


def loss(params):
    return jnp.sum((params['w'] - 1) ** 2) + jnp.sum(params['b'] ** 4)


def trained(tx, steps=3):
    params = {'w': jnp.arange(3.0), 'b': jnp.ones(2)}
    state = tx.init(params)
    for _ in range(steps):
        grads = jax.grad(loss)(params)
        updates, state = tx.update(grads, state, params, grad_fn=jax.grad(loss))
        params = optax.apply_updates(params, updates)
    return params, state


def test_it_equals_the_chain_of_its_components_alone_and_in_a_chain():
    minimizer, descent = optim.rfn_sam(0.3), optim.momentum_sgd(0.05, momentum=0.9, weight_decay=5e-4)
    expected, _ = trained(optax.chain(minimizer, descent))
    alone, state = trained(optim.Optimizer(minimizer, descent))
    chained, _ = trained(optax.chain(optim.Optimizer(minimizer, descent), optax.identity()))
    for found in (alone, chained):
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert int(state.minimizer.ascent_count) == 3
    assert optim.diagnostics(state)['perturbation_norm'] > 0


def test_components_without_extra_arguments_are_accepted():
    expected, _ = trained(optax.sgd(0.1))
    found, _ = trained(optim.Optimizer(optax.identity(), optax.sgd(0.1)))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


COPIES = {
    'copy': copy.copy,
    'deepcopy': copy.deepcopy,
    'tree.map': lambda tx: jax.tree.map(lambda function: function, tx),
    'unflatten': lambda tx: jax.tree.unflatten(jax.tree.structure(tx), jax.tree.leaves(tx)),
}


@pytest.mark.parametrize('make', COPIES.values(), ids=COPIES)
def test_copies_keep_the_components(make):
    tx = optim.Optimizer(optim.rfn_sam(0.3), optax.sgd(0.1))
    found = make(tx)
    assert type(found) is optim.Optimizer
    assert (found.minimizer, found.descent) == (tx.minimizer, tx.descent)
    jax.tree.map(np.testing.assert_array_equal, trained(found), trained(tx))


def test_with_another_update_it_has_no_components():
    tx = optim.Optimizer(optim.rfn_sam(0.3), optax.sgd(0.1))
    found = tx._replace(update=lambda grads, state, params, **extra_args: (grads, state))
    assert type(found) is optax.GradientTransformationExtraArgs
    assert found.init is tx.init
    params, _ = trained(found, steps=1)
    np.testing.assert_array_equal(params['w'], 3 * np.arange(3.0) - 2)  # w + 2 (w - 1)


def test_hyperparameters_of_both_components_may_be_injected():
    def make(rho, learning_rate):
        return optim.Optimizer(optim.rfn_sam(rho), optax.sgd(learning_rate))

    found, state = trained(optax.inject_hyperparams(make)(rho=0.3, learning_rate=0.1))
    expected, _ = trained(make(0.3, 0.1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    assert isinstance(state.inner_state, optim.OptimizerState)

import jax
import jax.numpy as jnp
import numpy as np
import optax

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


def test_is_the_chain_of_its_parts_alone_and_in_a_chain():
    minimizer, descent = optim.rfn_sam(0.3), optim.momentum_sgd(0.05, momentum=0.9, weight_decay=5e-4)
    expected, _ = trained(optax.chain(minimizer, descent))
    alone, state = trained(optim.Optimizer(minimizer, descent))
    chained, _ = trained(optax.chain(optim.Optimizer(minimizer, descent), optax.identity()))
    for found in (alone, chained):
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert int(state.minimizer.ascent_count) == 3
    assert optim.diagnostics(state)['perturbation_norm'] > 0


def test_parts_without_extra_arguments_are_accepted():
    expected, _ = trained(optax.sgd(0.1))
    found, _ = trained(optim.Optimizer(optax.identity(), optax.sgd(0.1)))
    jax.tree.map(np.testing.assert_array_equal, found, expected)

import family
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import optim


def loss(params):
    """A linear network of two layers without biases: (c W, V / c) gives the same function for every c."""
    x = jnp.asarray([0.3, -1.2, 0.7])
    return jnp.sum((params['V'] @ (params['W'] @ x) - 1.0) ** 2)


def perturbed(tx, params):
    seen = []

    def grad_fn(params):
        seen.append(params)
        return jax.grad(loss)(params)

    tx.update(jax.grad(loss)(params), tx.init(params), params, grad_fn=grad_fn)
    return seen[0]


@pytest.mark.parametrize('c', [4.0, 0.01])
def test_rescaling_layers_does_not_matter_unlike_for_sam(c):
    rng = np.random.default_rng(0)
    params = {'W': jnp.float32(rng.normal(size=(4, 3))), 'V': jnp.float32(rng.normal(size=(2, 4)))}
    rescaled = {'W': params['W'] * c, 'V': params['V'] / c}
    assert float(loss(rescaled)) == pytest.approx(float(loss(params)), rel=1e-5)
    asam, sam = optim.asam(0.3, eta=0), optim.sam(0.3)
    at, at_rescaled = perturbed(asam, params), perturbed(asam, rescaled)
    family.assert_close({'W': at['W'] * c, 'V': at['V'] / c}, at_rescaled, atol=1e-5 * max(c, 1 / c))
    assert float(loss(at_rescaled)) == pytest.approx(float(loss(at)), rel=1e-4)
    assert float(loss(perturbed(sam, rescaled))) != pytest.approx(float(loss(perturbed(sam, params))), rel=0.1)


def test_weights_of_zero_move_by_eta_only():
    params = {'W': jnp.zeros((4, 3)).at[0, 0].set(1.0), 'V': jnp.ones((2, 4))}
    assert np.count_nonzero(perturbed(optim.asam(0.3, eta=0), params)['W']) == 1
    assert np.count_nonzero(perturbed(optim.asam(0.3, eta=0.01), params)['W']) == 12
    zeros = jax.tree.map(jnp.zeros_like, params)
    family.assert_close(perturbed(optim.asam(0.3, eta=0), zeros), zeros, atol=0)

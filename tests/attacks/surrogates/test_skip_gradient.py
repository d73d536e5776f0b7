import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks
from small_networks import COTANGENT, IMAGES, KEYS, LABELS, attack

from rfn_jax.attacks.surrogates.ensembles import Ensemble
from rfn_jax.attacks.surrogates.ghost import ghost_network
from rfn_jax.attacks.surrogates.skip_gradient import scale_gradient, skip_gradient
from rfn_jax.core.errors import InputError


@pytest.mark.parametrize(
    ('kind', 'gamma'), [('resnet', 0.2), ('vit', 0.2), ('vit', 0.0), ('densenet', 0.5), ('mobilenet_v2', 0.2)]
)
def test_the_gradient_is_the_product_of_the_blocks(kind, gamma):
    network = small_networks.classifier(kind)

    def decayed(index, branch, skip, x, g):
        return jax.vjp(skip, x)[1](g)[0] + gamma * jax.vjp(branch, x)[1](g)[0]

    parts = small_networks.PARTS[kind](network)
    expected = jax.jit(lambda x, c: small_networks.backward(parts, x, c, decayed))(IMAGES, COTANGENT)
    small_networks.assert_another_gradient(skip_gradient(gamma)(network), network, expected)


@pytest.mark.parametrize('kind', ['bottleneck', 'vit'])
def test_with_gamma_one_it_is_the_plain_gradient(kind):
    network = small_networks.classifier(kind)
    found = small_networks.gradient(skip_gradient(1.0)(network))
    plain = small_networks.gradient(network)
    jax.tree.map(np.testing.assert_array_equal, found, plain)


def test_two_factors_multiply():
    network = small_networks.classifier('resnet')
    twice = skip_gradient(0.4)(skip_gradient(0.5)(network))
    once = skip_gradient(0.2)(network)
    found, expected = (small_networks.gradient(s)[0] for s in (twice, once))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_gradients_keep_their_type():
    x = jnp.ones(3, jnp.bfloat16)
    assert jax.grad(lambda x: jnp.sum(scale_gradient(x, 0.2)))(x).dtype == jnp.bfloat16


def test_it_composes_with_ghosts_and_in_ensembles():
    network, other = small_networks.classifier('resnet'), small_networks.classifier('mlp')
    sgm, ghost = skip_gradient(0.3), ghost_network(0.2, dropout=0.1)
    outer, inner = sgm(ghost(network)), ghost(sgm(network))
    assert outer.varies
    assert inner.varies
    assert not sgm(network).varies
    found = [small_networks.gradient(s) for s in (outer, inner, ghost(network))]
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-6)
    np.testing.assert_array_equal(found[0][1], found[2][1])
    assert np.max(np.abs(found[0][0] - found[2][0])) > 1e-3
    both = small_networks.gradient(sgm(Ensemble((network, other))), IMAGES, COTANGENT)
    each = [small_networks.gradient(s) for s in (sgm(network), other)]
    jax.tree.map(lambda b, x, y: np.testing.assert_allclose(b, (x + y) / 2, atol=1e-5), both, *each)


def test_a_network_without_residual_sums_is_refused():
    for kind in ('vgg', 'mlp'):
        with pytest.raises(InputError, match='skip_gradient needs skip connections, but the surrogate has none'):
            attack(skip_gradient())(small_networks.classifier(kind), IMAGES, LABELS, KEYS)

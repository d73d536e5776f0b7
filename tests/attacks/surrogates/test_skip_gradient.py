import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks
from small_networks import attack

from rfn_jax import models
from rfn_jax.attacks.surrogates.ensembles import Ensemble
from rfn_jax.attacks.surrogates.ghost import ghost_network
from rfn_jax.attacks.surrogates.skip_gradient import scale_gradient, skip_gradient
from rfn_jax.core import rng
from rfn_jax.core.errors import InputError

RNG = np.random.default_rng(1)
IMAGES = RNG.uniform(0.2, 0.8, (6, 6, 6, 3)).astype(np.float32)
COTANGENT = RNG.normal(size=(6, 5)).astype(np.float32)
LABELS = RNG.integers(5, size=6).astype(np.int32)
KEYS = rng.example_keys(jax.random.key(3), np.arange(6))


@pytest.mark.parametrize(
    ('kind', 'gamma'), [('resnet', 0.2), ('vit', 0.2), ('vit', 0.0), ('densenet', 0.5), ('mobilenet_v2', 0.2)]
)
def test_the_gradient_is_the_product_of_the_blocks(kind, gamma):
    network = small_networks.classifier(kind)
    found, logits = small_networks.gradient(skip_gradient(gamma)(network), IMAGES, COTANGENT)

    def decayed(index, branch, skip, x, g):
        return jax.vjp(skip, x)[1](g)[0] + gamma * jax.vjp(branch, x)[1](g)[0]

    parts = small_networks.PARTS[kind](network)
    expected = jax.jit(lambda x, c: small_networks.backward(parts, x, c, decayed))(IMAGES, COTANGENT)
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max(), rtol=1e-5)
    plain, plain_logits = small_networks.gradient(network, IMAGES, COTANGENT)
    np.testing.assert_array_equal(logits, plain_logits)
    assert np.max(np.abs(found - plain)) > 0.1 * np.max(np.abs(plain))


@pytest.mark.parametrize('kind', ['bottleneck', 'vit'])
def test_with_gamma_one_it_is_the_plain_gradient(kind):
    network = small_networks.classifier(kind)
    found = small_networks.gradient(skip_gradient(1.0)(network), IMAGES, COTANGENT)
    plain = small_networks.gradient(network, IMAGES, COTANGENT)
    jax.tree.map(np.testing.assert_array_equal, found, plain)


def test_two_factors_multiply():
    network = small_networks.classifier('resnet')
    twice = skip_gradient(0.4)(skip_gradient(0.5)(network))
    once = skip_gradient(0.2)(network)
    found, expected = (small_networks.gradient(s, IMAGES, COTANGENT)[0] for s in (twice, once))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_gradients_keep_their_type():
    x = jnp.ones(3, jnp.bfloat16)
    assert jax.grad(lambda x: jnp.sum(scale_gradient(x, 0.2)))(x).dtype == jnp.bfloat16


def test_in_an_attack_it_gives_the_attack_on_the_transformed_surrogate():
    network, sgm = small_networks.classifier('resnet'), skip_gradient(0.3)
    found = attack(sgm)(network, IMAGES, LABELS, KEYS)
    np.testing.assert_allclose(found, small_networks.plain_attack(sgm(network), IMAGES, LABELS), atol=1e-6)
    part = jax.jit(attack(sgm))(network, IMAGES[2:5], LABELS[2:5], KEYS[2:5])
    np.testing.assert_allclose(part, found[2:5], atol=1e-6)
    assert np.max(np.abs(found - small_networks.plain_attack(network, IMAGES, LABELS))) > 1e-4


def test_checkpoints_share_a_compilation():
    traces = []

    class Counted(models.resnet.ResNet):
        def __call__(self, x, *, train=False):
            traces.append(x.shape)
            return super().__call__(x, train=train)

    network, sgm = Counted(5, (1, 1), (3, 4)), attack(skip_gradient(0.3))
    checkpoints = [small_networks.classifier('resnet', seed, network) for seed in (0, 1)]
    traces.clear()
    first = sgm(checkpoints[0], IMAGES, LABELS, KEYS)
    count = len(traces)
    assert count > 1  # the first call was traced, and the second was not
    second = sgm(checkpoints[1], IMAGES, LABELS, KEYS)
    assert len(traces) == count
    assert np.any(first != second)


def test_it_composes_with_ghosts_and_in_ensembles():
    network, other = small_networks.classifier('resnet'), small_networks.classifier('mlp')
    sgm, ghost = skip_gradient(0.3), ghost_network(0.2, dropout=0.1)
    outer, inner = sgm(ghost(network)), ghost(sgm(network))
    assert outer.varies_by_step
    assert inner.varies_by_step
    assert not sgm(network).varies_by_step
    found = [small_networks.gradient(s, IMAGES, COTANGENT, KEYS) for s in (outer, inner, ghost(network))]
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-6)
    np.testing.assert_array_equal(found[0][1], found[2][1])
    assert np.max(np.abs(found[0][0] - found[2][0])) > 1e-3
    both = small_networks.gradient(sgm(Ensemble((network, other))), IMAGES, COTANGENT)
    each = [small_networks.gradient(s, IMAGES, COTANGENT) for s in (sgm(network), other)]
    jax.tree.map(lambda b, x, y: np.testing.assert_allclose(b, (x + y) / 2, atol=1e-5), both, *each)


def test_a_network_without_residual_sums_and_a_function_are_refused():
    for kind in ('vgg', 'mlp'):
        with pytest.raises(InputError, match='skip_gradient needs skip connections, and the surrogate has none'):
            attack(skip_gradient())(small_networks.classifier(kind), IMAGES, LABELS, KEYS)
    function = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, jnp.zeros((108, 5)))
    with pytest.raises(InputError, match='skip_gradient needs a Classifier, or surrogates made of them, got Partial'):
        attack(skip_gradient())(function, IMAGES, LABELS, KEYS)

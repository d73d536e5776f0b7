import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks
from quick_attacks import slow
from small_networks import IMAGES, KEYS, LABELS, attack, gradient

from rfn_jax.attacks.surrogates.skip_gradient import scale_gradient, skip_gradient
from rfn_jax.core.errors import InputError

RESNET = small_networks.classifier('resnet')


@pytest.mark.parametrize(
    ('kind', 'gamma'),
    [('resnet', 0.2), slow('densenet', 0.5), slow('vit', 0.2), slow('vit', 0.0), slow('mobilenet_v2', 0.2)],
)
def test_the_gradient_through_branches_is_decayed(kind, gamma):
    network = small_networks.classifier(kind)

    def decayed(branch, name):
        return lambda x: gamma * branch(x) + (1 - gamma) * jax.lax.stop_gradient(branch(x))

    def forward(x):
        return small_networks.PLAIN[kind](network, x, decayed)

    small_networks.assert_another_gradient(skip_gradient(gamma)(network), network, forward)


@pytest.mark.parametrize('kind', ['resnet', slow('bottleneck'), slow('vit')])
def test_with_gamma_one_it_is_the_plain_gradient(kind):
    network = small_networks.classifier(kind)
    jax.tree.map(np.testing.assert_array_equal, gradient(skip_gradient(1.0)(network)), gradient(network))


def test_two_factors_multiply():
    twice, once = skip_gradient(0.4)(skip_gradient(0.5)(RESNET)), skip_gradient(0.2)(RESNET)
    np.testing.assert_allclose(gradient(twice)[0], gradient(once)[0], atol=1e-6)


def test_gradients_keep_their_type():
    x = jnp.ones(3, jnp.bfloat16)
    assert jax.grad(lambda x: jnp.sum(scale_gradient(x, 0.2)))(x).dtype == jnp.bfloat16


@pytest.mark.parametrize('kind', ['vgg', 'mlp'])
def test_a_network_without_residual_sums_is_refused(kind):
    with pytest.raises(InputError, match='skip_gradient needs skip connections, but the surrogate has none'):
        attack(skip_gradient())(small_networks.classifier(kind), IMAGES, LABELS, KEYS)

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks
from quick_attacks import slow
from small_networks import COTANGENT, IMAGES, KEYS, LABELS, attack, gradient

from rfn_jax import models
from rfn_jax.attacks.surrogates.linear_backprop import linear_backprop
from rfn_jax.attacks.surrogates.skip_gradient import skip_gradient
from rfn_jax.core.errors import InputError
from rfn_jax.models import hooks

RESNET = small_networks.classifier('resnet')


def linear(x):
    """ReLU with the gradient of the identity, as the authors write it."""
    return x + jax.lax.stop_gradient(nn.relu(-x))


def linear6(x):
    """ReLU6 with the gradient of the identity."""
    return x + jax.lax.stop_gradient(nn.relu(-x) - nn.relu(x - 6))


def rescaled(branch, straight):
    """A branch whose gradient is that with straight ReLUs, rescaled to the norm of the true one."""

    def backward(x, g):
        true, found = (jax.vjp(f, x)[1](g)[0] for f in (branch, lambda x: branch(x, straight)))
        norms = [jnp.sqrt(jnp.sum(part**2, axis=(1, 2, 3), keepdims=True)) for part in (true, found)]
        return (norms[0] / norms[1] * found,)

    function = jax.custom_vjp(lambda x: branch(x))
    function.defvjp(lambda x: (branch(x), x), backward)
    return function


@pytest.mark.parametrize(('kind', 'expected'), [(hooks.Relu, [0, 0, 3, 7]), (hooks.Relu6, [0, 0, 3, 6])])
def test_a_linear_relu_has_the_values_of_a_relu_and_the_gradient_of_the_identity(kind, expected):
    class Single(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return kind(name='relu')(x)

    single = linear_backprop('relu')(models.Classifier({}, Single(), 1))
    value, pullback = jax.vjp(single, jnp.asarray([-2.0, 0.0, 3.0, 7.0])[:, None, None, None])
    np.testing.assert_array_equal(value.ravel(), expected)
    np.testing.assert_array_equal(pullback(jnp.arange(4.0)[:, None, None, None])[0].ravel(), [0, 1, 2, 3])


@pytest.mark.parametrize('from_layer', ['layer1_0', 'layer2_0'])
def test_residual_blocks_have_linear_branches_with_the_norms_of_the_true_ones(from_layer):
    def wrap(branch, name):
        return rescaled(branch, linear) if name >= from_layer else branch

    def forward(x):
        return small_networks.resnet(RESNET, x, wrap)

    small_networks.assert_another_gradient(linear_backprop(from_layer)(RESNET), RESNET, forward)


@pytest.mark.slow
def test_relu6_is_linear_in_a_mobilenet_and_its_branches_keep_their_norms():
    network = small_networks.classifier('mobilenet_v2')

    def forward(x):
        return small_networks.mobilenet_v2(network, x, lambda branch, name: rescaled(branch, linear6), linear6)

    small_networks.assert_another_gradient(linear_backprop('features_2')(network), network, forward)


@pytest.mark.slow
def test_a_densenet_is_linear_behind_its_stem_and_concatenations_rescale_nothing():
    network = small_networks.classifier('densenet')

    def forward(x):
        return small_networks.densenet(network, x, relu=linear)

    small_networks.assert_another_gradient(linear_backprop('denseblock1_denselayer1')(network), network, forward)


def test_a_stem_is_linear_if_the_layer_is_not_after_its_relu():
    found, later = (gradient(linear_backprop(layer)(RESNET))[0] for layer in ('relu1', 'layer1_0'))
    assert np.max(np.abs(found - later)) > 1e-3


@pytest.mark.parametrize(
    ('from_layer', 'relus'), [('fc1', (linear, linear)), ('relu1', (linear, linear)), ('fc2', (nn.relu, linear))]
)
def test_the_relus_of_a_perceptron_are_linear_from_the_layer_on(from_layer, relus):
    network = small_networks.classifier('mlp')

    def forward(x):
        return small_networks.mlp(network, x, relus)

    small_networks.assert_another_gradient(linear_backprop(from_layer)(network), network, forward)


def test_branches_without_gradient_give_no_nan():
    silent = skip_gradient(0.0)(RESNET)
    np.testing.assert_allclose(gradient(linear_backprop('layer1_0')(silent))[0], gradient(silent)[0], atol=1e-6)


def test_the_forward_pass_of_a_branch_is_computed_once():
    # XLA merges what both evaluations have in common: the forward pass, and the gradients of the last convolutions.
    before = jax.config.read('jax_disable_most_optimizations')
    jax.config.update('jax_disable_most_optimizations', False)
    try:
        surrogates = RESNET, linear_backprop('layer1_0')(RESNET)
        texts = [gradient.lower(surrogate, IMAGES, COTANGENT).compile().as_text() for surrogate in surrogates]
        assert [text.count(' convolution(') for text in texts] == [12, 14]  # a first convolution in each block
    finally:
        jax.config.update('jax_disable_most_optimizations', before)


@pytest.mark.parametrize(
    ('kind', 'layer', 'message'),
    [
        ('resnet', 'layer3_1', "'layer3_1'; the layers are conv1, bn1, relu1, layer1_0, layer2_0, fc"),
        ('resnet', 'fc', "linear_backprop needs ReLUs from layer 'fc' on, but the surrogate has none"),
        slow('vit', 'block0', "linear_backprop needs ReLUs from layer 'block0' on, but the surrogate has none"),
        # The ReLU inside a gate does not count.
        ('mobilenet_v3_small', 'features_2', "needs ReLUs from layer 'features_2' on, but the surrogate has none"),
    ],
)
def test_layers_without_relus_after_them_are_refused(kind, layer, message):
    with pytest.raises(InputError, match=message):
        attack(linear_backprop(layer))(small_networks.classifier(kind), IMAGES, LABELS, KEYS)

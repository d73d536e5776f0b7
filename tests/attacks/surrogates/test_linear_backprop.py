import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks
from small_networks import COTANGENT, IMAGES, KEYS, LABELS, attack

from rfn_jax import models
from rfn_jax.attacks.surrogates.ensembles import Ensemble
from rfn_jax.attacks.surrogates.ghost import ghost_network
from rfn_jax.attacks.surrogates.linear_backprop import linear_backprop
from rfn_jax.attacks.surrogates.skip_gradient import skip_gradient
from rfn_jax.core.errors import InputError
from rfn_jax.models import hooks

BLOCKS = ['layer1_0', 'layer2_0']


def linear(x):
    """ReLU with the gradient of the identity, as the authors write it."""
    return x + jax.lax.stop_gradient(jax.nn.relu(-x))


def linear6(x):
    """ReLU6 with the gradient of the identity."""
    return x + jax.lax.stop_gradient(jax.nn.relu(-x) - jax.nn.relu(x - 6))


def rescaled(true, straight, x, g):
    """The gradient through the second function, rescaled to the norm of that through the first."""
    gradients = [jax.vjp(function, x)[1](g)[0] for function in (true, straight)]
    norms = [jnp.sqrt(jnp.sum(part**2, axis=(1, 2, 3), keepdims=True)) for part in gradients]
    return norms[0] / norms[1] * gradients[1]


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


@pytest.mark.parametrize('first', [0, 1])
def test_residual_blocks_have_linear_branches_with_the_norms_of_the_true_ones(first):
    network = small_networks.classifier('resnet')

    def block_gradient(index, branch, skip, x, g):
        through_skip = jax.vjp(skip, x)[1](g)[0]
        straight = functools.partial(branch, relu=linear if index >= first else jax.nn.relu)
        return through_skip + rescaled(branch, straight, x, g)

    parts = small_networks.resnet_parts(network)
    expected = jax.jit(lambda x, c: small_networks.backward(parts, x, c, block_gradient))(IMAGES, COTANGENT)
    small_networks.assert_another_gradient(linear_backprop(BLOCKS[first])(network), network, expected)


def test_relu6_is_linear_in_a_mobilenet_and_its_branches_keep_their_norms():
    network = small_networks.classifier('mobilenet_v2')
    stem, blocks, _ = small_networks.mobilenet_v2_parts(network)
    _, straight, head = small_networks.mobilenet_v2_parts(network, linear6)

    def block_gradient(index, branch, skip, x, g):
        return g + rescaled(branch, straight[index][0], x, g)

    parts = (stem, blocks, head)
    expected = jax.jit(lambda x, c: small_networks.backward(parts, x, c, block_gradient))(IMAGES, COTANGENT)
    small_networks.assert_another_gradient(linear_backprop('features_2')(network), network, expected)


def test_a_densenet_is_linear_behind_its_stem_and_concatenations_rescale_nothing():
    network = small_networks.classifier('densenet')
    stem, _, _ = small_networks.densenet_parts(network)
    parts = (stem, *small_networks.densenet_parts(network, linear)[1:])
    forward = jax.jit(lambda x, c: jax.vjp(lambda x: small_networks.forward(parts, x)[0], x)[1](c)[0])
    expected = forward(IMAGES, COTANGENT)
    small_networks.assert_another_gradient(linear_backprop('denseblock1_denselayer1')(network), network, expected)


def test_a_stem_is_linear_if_the_layer_is_not_after_its_relu():
    network = small_networks.classifier('resnet')
    found, _ = small_networks.gradient(linear_backprop('relu1')(network))
    later, _ = small_networks.gradient(linear_backprop('layer1_0')(network))
    assert np.max(np.abs(found - later)) > 1e-3


def mlp_gradient(network, images, cotangent, relus):
    """The gradient of a perceptron in NumPy; `relus` says which of its two ReLUs keep their masks."""
    p, s = (network.variables[name] for name in ('params', 'batch_stats'))
    x, factors = np.float64((images - small_networks.MEAN) / small_networks.STD).reshape(len(images), -1), []
    for i in (1, 2):
        dense, norm, stats = p[f'fc{i}'], p[f'bn{i}'], s[f'bn{i}']
        slope = norm['scale'] / np.sqrt(stats['var'] + 1e-5)
        x = (x @ dense['kernel'] + dense['bias'] - stats['mean']) * slope + norm['bias']
        factors.append((dense['kernel'], slope, x > 0 if relus[i - 1] else np.ones_like(x)))
        x = np.maximum(x, 0)
    g = cotangent @ np.asarray(p['fc']['kernel']).T
    for kernel, slope, mask in reversed(factors):
        g = (g * mask * slope) @ np.asarray(kernel).T
    return g.reshape(images.shape) / small_networks.STD


@pytest.mark.parametrize(
    ('from_layer', 'relus'), [('fc1', (False, False)), ('relu1', (False, False)), ('fc2', (True, False))]
)
def test_the_gradient_of_a_perceptron_is_a_product_of_matrices(from_layer, relus):
    network = small_networks.classifier('mlp')
    found, logits = small_networks.gradient(linear_backprop(from_layer)(network))
    expected = mlp_gradient(network, IMAGES, COTANGENT, relus)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    plain, plain_logits = small_networks.gradient(network)
    np.testing.assert_array_equal(logits, plain_logits)
    np.testing.assert_allclose(plain, mlp_gradient(network, IMAGES, COTANGENT, (True, True)), atol=1e-5)


def test_it_composes_with_ghosts_and_skip_gradients():
    network = small_networks.classifier('resnet')
    linbp, ghost, sgm = linear_backprop('layer1_0'), ghost_network(0.3, 0.2), skip_gradient(0.4)
    surrogates = linbp(ghost(sgm(network))), sgm(ghost(linbp(network))), ghost(network)
    found = [small_networks.gradient(s) for s in surrogates]
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-5)
    for _, logits in found:
        np.testing.assert_allclose(logits, found[0][1], atol=1e-6)


def test_branches_without_gradient_give_no_nan():
    network = small_networks.classifier('resnet')
    surrogate = linear_backprop('layer1_0')(skip_gradient(0.0)(network))
    found, _ = small_networks.gradient(surrogate)
    expected, _ = small_networks.gradient(skip_gradient(0.0)(network))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_in_an_ensemble_every_member_starts_at_its_own_layer():
    network, other = (small_networks.classifier('resnet', seed) for seed in (0, 1))
    linbp = linear_backprop('layer2_0')
    both = small_networks.gradient(linbp(Ensemble((network, other))), IMAGES, COTANGENT)
    each = [small_networks.gradient(linbp(n)) for n in (network, other)]
    jax.tree.map(lambda b, x, y: np.testing.assert_allclose(b, (x + y) / 2, atol=1e-5), both, *each)


def test_the_forward_pass_of_a_branch_is_computed_once():
    # XLA merges what both evaluations have in common: the forward pass, and the gradients of the last convolutions.
    before = jax.config.read('jax_disable_most_optimizations')
    jax.config.update('jax_disable_most_optimizations', False)
    try:
        network = small_networks.classifier('resnet')

        def convolutions(surrogate):
            text = small_networks.gradient.lower(surrogate, IMAGES, COTANGENT).compile().as_text()
            return text.count(' convolution(')

        plain = convolutions(network)
        assert plain == 12
        assert convolutions(linear_backprop('layer1_0')(network)) == plain + 2  # a first convolution in each block
    finally:
        jax.config.update('jax_disable_most_optimizations', before)


@pytest.mark.parametrize(
    ('kind', 'layer', 'message'),
    [
        (
            'resnet',
            'layer3_1',
            "unknown layer 'layer3_1'; the layers are conv1, bn1, relu1, layer1_0, layer2_0, fc",
        ),
        ('resnet', 'fc', "linear_backprop needs ReLUs from layer 'fc' on, but the surrogate has none"),
        ('vit', 'block0', "linear_backprop needs ReLUs from layer 'block0' on, but the surrogate has none"),
        # The ReLU inside a gate does not count.
        ('mobilenet_v3_small', 'features_2', "needs ReLUs from layer 'features_2' on, but the surrogate has none"),
    ],
)
def test_layers_without_relus_after_them_are_refused(kind, layer, message):
    with pytest.raises(InputError, match=message):
        attack(linear_backprop(layer))(small_networks.classifier(kind), IMAGES, LABELS, KEYS)

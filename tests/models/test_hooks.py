import collections
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from shapes import shapes_of
from textbook_layers import randomized

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import hooks

IMAGES = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)


def classifier(name):
    module = small_models.small(name)
    return models.abstract(module, (8, 8, 3), num_classes=5).replace(variables=randomized(shapes_of(module)))


# Hashes of the names and shapes of variables, on which checkpoints depend.
VARIABLES = {
    **{'mlp': '52477e0fc3c95677', 'cifar_resnet': '8082cd0e0480895a', 'resnet': '3887da837ef50c87'},
    **{'resnet50': '352bace2d755fa42', 'resnext50_32x4d': '98d8a1a3b0f0963f', 'preact_resnet': '3fd733ef36f95c5f'},
    **{'vgg': '440a760603a7489e', 'vgg11': '1f7b1a58cb3c3b0b', 'densenet': '015680e4fdfff3df'},
    **{'googlenet': '4b9d90fb55d7283c', 'cifar_inception_v3': 'a4eada073e18e304', 'vit': '916c319703a9cd39'},
    **{'swin': '7ffae05f92c42cba', 'convnext': 'e846a44ba42d58c1', 'mobilenet_v2': '96745da072f80b3e'},
    **{'mobilenet_v3_small': '84f8af1fc97a742b', 'efficientnet': '7e28270b3fb215bb'},
    **{'efficientnet_lite': '9ae05b0a19c429db', 'mobilenet_v1': '555d4770966128f6', 'squeezenet': 'f9c11f4a64d2c54c'},
}
# The layers of the small form of each kind of model, and how many hooks of each class it has.
PLACES = {
    'mlp': ('fc1 bn1 relu1 fc2 bn2 relu2 fc', {'Relu': 2}),
    'cifar_resnet': ('conv1 bn1 relu1 layer1_0 layer2_0 layer3_0 fc', {'Residual': 3, 'Relu': 7}),
    'resnet': ('conv1 bn1 relu1 layer1_0 layer2_0 fc', {'Residual': 2, 'Relu': 5}),
    'resnet50': ('conv1 bn1 relu1 layer1_0 layer2_0 fc', {'Residual': 2, 'Relu': 7}),
    'resnext50_32x4d': ('conv1 bn1 relu1 layer1_0 layer2_0 fc', {'Residual': 2, 'Relu': 7}),
    'preact_resnet': ('conv1 layer1_0 layer2_0 bn relu fc', {'Residual': 2, 'Relu': 5}),
    'vgg': ('conv1_0 bn1_0 relu1_0 conv1_1 bn1_1 relu1_1 conv2_0 bn2_0 relu2_0 fc', {'Relu': 3}),
    'vgg11': ('conv1_0 relu1_0 conv2_0 relu2_0 fc1 relu_fc1 dropout1 fc2 relu_fc2 dropout2 fc', {'Relu': 4}),
    'densenet': (
        'conv0 norm0 relu0 denseblock1_denselayer1 transition1 denseblock2_denselayer1 denseblock2_denselayer2 norm5 relu5 '
        'classifier',
        {'Concatenation': 3, 'Relu': 9},
    ),
    'googlenet': (
        'conv1 conv2 conv3 inception3a inception3b inception4a inception4b inception4c inception4d inception4e inception5a '
        'inception5b dropout fc',
        {'Relu': 57},
    ),
    'cifar_inception_v3': (
        'Conv2d_1a_3x3 Mixed_5b Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c '
        'dropout fc',
        {'Relu': 90},
    ),
    'vit': ('patch_embedding drop block0 block1 ln fc', {'Residual': 4, 'Gelu': 2}),
    'swin': (
        'features_0_0 features_0_2 features_1_0 features_1_1 features_2 features_3_0 norm head',
        {'Residual': 6, 'Gelu': 3},
    ),
    'convnext': (
        'features_0_0 features_0_1 features_1_0 features_2_0 features_2_1 features_3_0 features_3_1 classifier_0 '
        'classifier_2',
        {'Residual': 3, 'Gelu': 3},
    ),
    'mobilenet_v2': (
        'features_0 features_1 features_2 features_3 features_4 dropout classifier',
        {'Residual': 1, 'Relu6': 7},
    ),
    'mobilenet_v3_small': (
        'features_0 features_1 features_2 features_3 classifier_0 hard_swish dropout classifier_3',
        {'Residual': 1, 'HardSwish': 5, 'Relu': 1},
    ),
    'efficientnet': (
        'features_0 features_1_0 features_2_0 features_2_1 features_3 dropout classifier',
        {'Residual': 2, 'Silu': 7},
    ),
    'efficientnet_lite': (
        'features_0 features_1_0 features_2_0 features_2_1 features_3 dropout classifier',
        {'Residual': 2, 'Relu6': 7},
    ),
    'mobilenet_v1': ('features_0 features_1 features_2 features_3 classifier', {'Relu': 7}),
    'squeezenet': ('features_0 features_1 features_3 features_4 classifier_0 classifier_1 classifier_2', {'Relu': 8}),
}


@pytest.mark.parametrize('name', small_models.slow_but(small_models.SEQUENTIAL, small_models.KINDS))
def test_variables_layers_sums_and_activations_are_where_they_should_be(name):
    (layers, kinds), seen, images = PLACES[name], [], small_models.images(name)
    network = models.abstract(small_models.small(name), images.shape[1:], num_classes=5)
    leaves = jax.tree_util.tree_leaves_with_path(network.variables)
    lines = '\n'.join(f'{jax.tree_util.keystr(path)} {leaf.shape}' for path, leaf in leaves)
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == VARIABLES[name]
    assert hooks.layers(network, images.shape[1:]) == tuple(layers.split())

    def visit(call, module, *args, **kwargs):
        seen.append(type(module).__name__)
        return call(*args, **kwargs)

    with hooks.intercept((hooks.Residual, hooks.Concatenation, hooks.Activation), visit):
        jaxpr = jax.make_jaxpr(lambda c, x: c(x))(network, images)
    assert collections.Counter(seen) == kinds
    activations = {kind: count for kind, count in kinds.items() if kind not in ('Residual', 'Concatenation')}
    if activations.keys() <= {'Relu', 'Relu6'}:  # none beside the hooks
        assert str(jaxpr).count('custom_jvp_call[') == sum(activations.values())


def test_a_relu_after_a_sum_is_marked():
    seen = {}

    def visit(call, module, *args, **kwargs):
        seen['/'.join(module.path)] = module.after_sum
        return call(*args, **kwargs)

    with hooks.intercept(hooks.Relu, visit):
        jax.eval_shape(classifier('resnet'), IMAGES)
    blocks = {f'{block}/{name}': name == 'relu' for block in ('layer1_0', 'layer2_0') for name in ('relu1', 'relu')}
    assert seen == {'relu1': False} | blocks


def test_interceptions_change_functions_and_compose():
    block, x = hooks.Residual(), jnp.arange(3.0)

    def negated(call, module, x, branch, skip=hooks.identity):
        return call(x, lambda x: -branch(x), skip)

    def doubled(call, module, x, branch, skip=hooks.identity):
        return call(x, branch, lambda x: 2 * skip(x))

    def value():
        return block.apply({}, x, lambda x: x**2)

    np.testing.assert_array_equal(value(), x + x**2)
    for first, second in ((negated, doubled), (doubled, negated)):
        with hooks.intercept(hooks.Residual, first), hooks.intercept(hooks.Residual, second):
            np.testing.assert_array_equal(value(), 2 * x - x**2)
    np.testing.assert_array_equal(value(), x + x**2)  # nothing is left behind


@pytest.mark.parametrize(('name', 'kind'), [('resnet', hooks.Relu), ('vit', hooks.Gelu)])
def test_activations_can_be_replaced(name, kind):
    network = classifier(name)

    def nothing(call, module, x, function=None):
        return call(x, jnp.zeros_like)

    with hooks.intercept(kind, nothing):
        logits = jax.jit(lambda c, x: c(x))(network, IMAGES)
    assert np.any(np.abs(logits - jax.jit(lambda c, x: c(x))(network, IMAGES)) > 1e-3)
    if name == 'resnet':
        np.testing.assert_allclose(logits, np.tile(network.variables['params']['fc']['bias'], (2, 1)), rtol=1e-6)


@pytest.mark.parametrize(('name', 'layer'), [('resnet', 'layer2_0'), ('vgg', 'relu1_1'), ('vit', 'block1')])
def test_outputs_of_layers_are_those_that_flax_captures(name, layer):
    network = classifier(name)
    with hooks.outputs(layer) as found:
        logits = network(IMAGES)
    expected_logits, state = network.module.apply(
        network.variables, IMAGES, train=False, capture_intermediates=True, mutable=['intermediates']
    )
    assert len(found) == 1
    np.testing.assert_array_equal(found[0], state['intermediates'][layer]['__call__'][0])
    np.testing.assert_array_equal(logits, expected_logits)


@pytest.mark.parametrize('layer', ['layer3_0', 'residual', 'relu', ''])
def test_an_unknown_layer(layer):
    message = f'unknown layer {layer!r}; the layers are conv1, bn1, relu1, layer1_0, layer2_0, fc'
    with pytest.raises(errors.InputError, match=message), hooks.outputs(layer):
        jax.eval_shape(classifier('resnet'), IMAGES)


def test_the_layer_must_be_in_every_network():
    *networks, other = map(classifier, ('resnet', 'mlp', 'vit'))
    with hooks.outputs('relu1') as found:
        for network in networks:
            jax.eval_shape(network, IMAGES)
        with pytest.raises(errors.InputError, match="unknown layer 'relu1'; the layers are patch_embedding, drop,"):
            jax.eval_shape(other, IMAGES)
    assert len(found) == 2

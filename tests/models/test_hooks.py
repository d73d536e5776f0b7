import collections
import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import hooks

IMAGES = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
SMALL = {
    'resnet': {'stage_sizes': (1, 2), 'widths': (3, 4)},
    'vgg': {'stages': ((4, 4), (5,))},
    'mlp': {'widths': (8, 6)},
    'vit': {'width': 4, 'depth': 2, 'heads': 2, 'mlp_width': 6},
    'cifar_resnet': {'depth': 8, 'width': 2},
}


def module(name):
    return models.MODELS.make(name, num_classes=5, **SMALL[name])


def classifier(name):
    template = models.abstract(module(name), (8, 8, 3), num_classes=5)
    rng = np.random.default_rng(0)
    draw = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.1, 1, leaf.shape), jnp.float32), template.variables)
    return template.replace(variables=draw)


# Hashes of the names and shapes of variables, on which checkpoints depend, from before hooks were introduced.
INITIAL = {
    'resnet': 'e01aedc52194f0af',
    'cifar_resnet': '8082cd0e0480895a',
    'vgg': '0bcfa52644bd7664',
    'mlp': '52477e0fc3c95677',
    'vit': 'cad76a503de97675',
}


@pytest.mark.parametrize('name', list(INITIAL))
def test_hooks_leave_names_and_shapes_of_variables_as_they_were(name):
    shapes = models.abstract(module(name), (8, 8, 3), num_classes=5).variables
    paths = [f'{jax.tree_util.keystr(path)} {leaf.shape}' for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)]
    assert hashlib.sha256('\n'.join(paths).encode()).hexdigest()[:16] == INITIAL[name]


@dataclasses.dataclass
class Places:
    """The places for hooks in the small form of a kind of model."""

    layers: str
    residual: int = 0
    concatenation: int = 0
    activations: dict[str, int] = dataclasses.field(default_factory=dict)


PLACES = {
    'mlp': Places('fc1 bn1 relu1 fc2 bn2 relu2 fc', activations={'Relu': 2}),
    'cifar_resnet': Places('conv1 bn1 relu1 layer1_0 layer2_0 layer3_0 fc', 3, activations={'Relu': 7}),
    'resnet': Places('conv1 bn1 relu1 layer1_0 layer2_0 fc', 2, activations={'Relu': 5}),
    'resnet50': Places('conv1 bn1 relu1 layer1_0 layer2_0 fc', 2, activations={'Relu': 7}),
    'resnext50_32x4d': Places('conv1 bn1 relu1 layer1_0 layer2_0 fc', 2, activations={'Relu': 7}),
    'preact_resnet': Places('conv1 layer1_0 layer2_0 bn relu fc', 2, activations={'Relu': 5}),
    'vgg': Places('conv1_0 bn1_0 relu1_0 conv1_1 bn1_1 relu1_1 conv2_0 bn2_0 relu2_0 fc', activations={'Relu': 3}),
    'vgg11': Places(
        'conv1_0 relu1_0 conv2_0 relu2_0 fc1 relu_fc1 dropout1 fc2 relu_fc2 dropout2 fc', activations={'Relu': 4}
    ),
    'densenet': Places(
        'conv0 norm0 relu0 denseblock1_denselayer1 transition1 denseblock2_denselayer1 denseblock2_denselayer2 norm5 relu5 '
        'classifier',
        concatenation=3,
        activations={'Relu': 9},
    ),
    'googlenet': Places(
        'conv1 conv2 conv3 inception3a inception3b inception4a inception4b inception4c inception4d inception4e inception5a '
        'inception5b dropout fc',
        activations={'Relu': 57},
    ),
    'cifar_inception_v3': Places(
        'Conv2d_1a_3x3 Mixed_5b Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c '
        'dropout fc',
        activations={'Relu': 90},
    ),
    'vit': Places('patch_embedding drop block0 block1 ln fc', 4, activations={'Gelu': 2}),
    'swin': Places(
        'features_0_0 features_0_2 features_1_0 features_1_1 features_2 features_3_0 norm head',
        6,
        activations={'Gelu': 3},
    ),
    'convnext': Places(
        'features_0_0 features_0_1 features_1_0 features_2_0 features_2_1 features_3_0 features_3_1 classifier_0 '
        'classifier_2',
        3,
        activations={'Gelu': 3},
    ),
    'mobilenet_v2': Places(
        'features_0 features_1 features_2 features_3 features_4 dropout classifier', 1, activations={'Relu6': 7}
    ),
    'mobilenet_v3_small': Places(
        'features_0 features_1 features_2 features_3 classifier_0 hard_swish dropout classifier_3',
        1,
        activations={'HardSwish': 5, 'Relu': 1},
    ),
    'efficientnet': Places(
        'features_0 features_1_0 features_2_0 features_2_1 features_3 dropout classifier', 2, activations={'Silu': 7}
    ),
    'efficientnet_lite': Places(
        'features_0 features_1_0 features_2_0 features_2_1 features_3 dropout classifier', 2, activations={'Relu6': 7}
    ),
    'mobilenet_v1': Places('features_0 features_1 features_2 features_3 classifier', activations={'Relu': 7}),
    'squeezenet': Places(
        'features_0 features_1 features_3 features_4 classifier_0 classifier_1 classifier_2', activations={'Relu': 8}
    ),
}


@pytest.mark.parametrize('name', small_models.KINDS)
def test_layers_sums_and_activations_are_where_they_should_be(name):
    places, seen, images = PLACES[name], [], small_models.images(name)
    network = models.abstract(small_models.small(name), images.shape[1:], num_classes=5)
    assert hooks.layers(network, images.shape[1:]) == tuple(places.layers.split())

    def visit(call, module, *args, **kwargs):
        seen.append(type(module).__name__)
        return call(*args, **kwargs)

    with hooks.intercept((hooks.Residual, hooks.Concatenation, hooks.Activation), visit):
        jaxpr = jax.make_jaxpr(lambda c, x: c(x))(network, images)
    sums = {'Residual': places.residual, 'Concatenation': places.concatenation}
    assert collections.Counter(seen) == collections.Counter({**sums, **places.activations})
    if places.activations.keys() <= {'Relu', 'Relu6'}:  # none beside the hooks
        assert str(jaxpr).count('custom_jvp_call[') == sum(places.activations.values())


def test_a_relu_after_a_sum_is_marked():
    seen = {}

    def visit(call, module, *args, **kwargs):
        seen['/'.join(module.path)] = module.after_sum
        return call(*args, **kwargs)

    with hooks.intercept(hooks.Relu, visit):
        jax.eval_shape(classifier('resnet'), IMAGES)
    assert seen == {'relu1': False} | {
        f'{block}/{name}': name == 'relu'
        for block in ('layer1_0', 'layer2_0', 'layer2_1')
        for name in ('relu1', 'relu')
    }


def test_interceptions_change_functions_and_compose():
    block = hooks.Residual()
    x = jnp.arange(3.0)

    def negated(call, module, x, branch, skip=hooks.identity):
        return call(x, lambda x: -branch(x), skip)

    def doubled(call, module, x, branch, skip=hooks.identity):
        return call(x, branch, lambda x: 2 * skip(x))

    def square(x):
        return x**2

    def value():
        return block.apply({}, x, square)

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
        logits = network(IMAGES)
    assert np.any(np.abs(logits - network(IMAGES)) > 1e-3)
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
    message = f'unknown layer {layer!r}; the layers are conv1, bn1, relu1, layer1_0, layer2_0, layer2_1, fc'
    with pytest.raises(errors.InputError, match=message), hooks.outputs(layer):
        jax.eval_shape(classifier('resnet'), IMAGES)


def test_the_layer_must_be_in_every_network():
    networks = [classifier(name) for name in ('resnet', 'mlp', 'vit')]
    with hooks.outputs('relu1') as found:
        for network in networks[:2]:
            jax.eval_shape(network, IMAGES)
        with pytest.raises(errors.InputError, match="unknown layer 'relu1'; the layers are patch_embedding, drop,"):
            jax.eval_shape(networks[2], IMAGES)
    assert len(found) == 2

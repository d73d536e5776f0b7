import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import weights

RESNET = {'stage_sizes': (1, 2), 'widths': (4, 6)}
VIT = {'width': 8, 'depth': 1, 'heads': 2, 'mlp_width': 16}
SWIN = {'patch_size': 1, 'width': 2, 'depths': (1,) * 4, 'heads': (1,) * 4, 'window_size': 1, 'mlp_ratio': 1}


def classifier(name='resnet', seed=0, **options):
    """A small classifier with random values everywhere."""
    options = options or RESNET
    template = models.abstract(models.MODELS.make(name, num_classes=5, **options), (8, 8, 3), num_classes=5)
    rng = np.random.default_rng(seed)
    draw = jax.tree.map(lambda leaf: np.float32(rng.uniform(0.1, 1, leaf.shape)), template.variables)
    return template.replace(variables=draw)


@pytest.fixture
def network():
    return classifier()


@pytest.fixture
def state(network):
    return weights.to_state_dict(network)


def assert_equal(one, other):
    assert one.module == other.module
    assert jax.tree.structure(one.variables) == jax.tree.structure(other.variables)
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)


def test_keys_and_axes_are_those_of_torchvision(network, state):
    params, stats = network.variables['params'], network.variables['batch_stats']
    assert list(state) == list(dict.fromkeys(state))
    block = params['layer2_0']
    for key, expected in {
        'conv1.weight': params['conv1']['kernel'].transpose(3, 2, 0, 1),
        'layer2.0.downsample.0.weight': block['downsample_conv']['kernel'].transpose(3, 2, 0, 1),
        'layer2.0.downsample.1.running_var': stats['layer2_0']['downsample_bn']['var'],
        'layer2.1.bn2.weight': params['layer2_1']['bn2']['scale'],
        'layer2.1.bn2.running_mean': stats['layer2_1']['bn2']['mean'],
        'fc.weight': params['fc']['kernel'].T,
        'fc.bias': params['fc']['bias'],
    }.items():
        np.testing.assert_array_equal(state[key], expected)
    assert {value.dtype for value in state.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ('name', 'options', 'naming'),
    [
        *(('resnet', RESNET, naming) for naming in ('torchvision', 'pytorch_cifar')),
        *(('vit', VIT, naming) for naming in ('torchvision', 'torchvision_old', 'timm')),
        *(('swin', SWIN, naming) for naming in ('torchvision', 'microsoft', 'timm')),
    ],
)
def test_a_round_trip_is_exact_and_finds_its_naming(name, options, naming):
    network, other = (classifier(name, seed, **options) for seed in (0, 1))
    assert naming in weights.namings(network)
    state = weights.to_state_dict(network, naming=naming)
    converted = weights.from_state_dict(other, state)
    assert (converted.naming, converted.missing, converted.unused, converted.misshaped) == (naming, (), (), ())
    assert_equal(converted.classifier, network)
    index = {key for key in state if key.endswith('relative_position_index')}
    assert len(index) == (4 if (name, naming) == ('swin', 'torchvision') else 0)
    sizes = [value.size for key, value in state.items() if key not in index]
    assert sum(sizes) == sum(leaf.size for leaf in jax.tree.leaves(network.variables))


def test_attention_is_joined():
    network = classifier('vit', **VIT)
    key = network.variables['params']['block0']['attention']['key']['kernel'].reshape(8, 8).T  # [heads * size, width]
    for naming in weights.namings(network):
        state = weights.to_state_dict(network, naming=naming)
        (joint,) = (value for name, value in state.items() if name.endswith(('in_proj_weight', 'qkv.weight')))
        np.testing.assert_array_equal(joint[8:16], key)


def test_other_floats_become_float32(network, state):
    half = {key: value.astype(jnp.bfloat16) for key, value in state.items()}
    double = {key: value.astype(np.float64) for key, value in state.items()}
    assert_equal(weights.from_state_dict(classifier(seed=1), double).classifier, network)
    converted = weights.from_state_dict(classifier(seed=1), half).classifier
    assert {leaf.dtype for leaf in jax.tree.leaves(converted.variables)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(converted.variables['params']['fc']['bias'], state['fc.bias'], rtol=1e-2)


@pytest.mark.parametrize(
    ('kind', 'key', 'value', 'message'),
    [
        ('missing', 'layer2.0.bn1.bias', None, 'layer2.0.bn1.bias; does'),
        ('unused', 'extra.weight', np.zeros(2), 'extra.weight; does'),
        ('misshaped', 'fc.weight', np.zeros((7, 6), np.float32), r'fc.weight has shape \[7, 6\] instead of \[5, 6\]; does'),
    ],
)  # fmt: skip
def test_mismatches_are_listed_and_stop_the_import_unless_allowed(network, state, kind, key, value, message):
    fresh = classifier(seed=1)
    state = {k: v for k, v in {**state, key: value}.items() if v is not None}
    with pytest.raises(errors.InputError, match=rf'^weights.pth does not match .*{kind}: {message} ') as caught:
        weights.from_state_dict(fresh, state, source='weights.pth')
    assert '\n' not in str(caught.value)
    converted = weights.from_state_dict(fresh, state, allow=[kind])
    assert len(getattr(converted, kind)) == 1
    expected = weights.to_state_dict(network)
    if kind != 'unused':
        expected[key] = weights.to_state_dict(fresh)[key]
    jax.tree.map(np.testing.assert_array_equal, weights.to_state_dict(converted.classifier), expected)


def test_long_lists_are_shortened():
    state = {f'other.{i}': np.zeros(1, np.float32) for i in range(40)}
    message = r'missing: bn1.running_mean, .* and 36 more; unused: other.0, .* and 34 more; does'
    with pytest.raises(errors.InputError, match=message):
        weights.from_state_dict(classifier(), state)
    with pytest.raises(errors.InputError, match='has no tensor that matches the model'):
        weights.from_state_dict(classifier(), state, allow=weights.PROBLEMS)


def test_buffers_that_do_not_matter_are_ignored(network, state):
    state |= {'bn1.num_batches_tracked': np.int64(7), 'layer1.0.bn1.num_batches_tracked': np.int64(7)}
    assert weights.from_state_dict(classifier(seed=1), state).unused == ()


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('fc.bias', np.full((5,), np.nan, np.float32), r'fc.bias of the state dict holds values that are not finite'),
        ('fc.bias', np.full((5,), 1e39), r'fc.bias of the state dict holds values that are not finite'),
        ('fc.bias', np.arange(5), r'fc.bias of the state dict holds int64, not floating-point numbers'),
        ('a\x1b[31m\nb', np.zeros(1), r'unused: a\\x1b\[31m\\nb;'),  # control characters are escaped
    ],
)
def test_bad_entries(state, key, value, message):
    with pytest.raises(errors.InputError, match=message):
        weights.from_state_dict(classifier(), {**state, key: value})


def test_bad_names(network, state):
    with pytest.raises(errors.InputError, match="unknown naming of ResNet 'torchvison'; did you mean 'torchvision'"):
        weights.from_state_dict(network, state, naming='torchvison')
    with pytest.raises(errors.InputError, match="unknown naming of ResNet 'timm'; known: pytorch_cifar, torchvision"):
        weights.to_state_dict(network, naming='timm')
    with pytest.raises(errors.InputError, match="unknown problem to allow 'mising'; did you mean 'missing'"):
        weights.from_state_dict(network, state, allow=['mising'])
    with pytest.raises(errors.InputError, match=r'no PyTorch naming .* for models of the family MLP; known families: '):
        weights.to_state_dict(classifier('mlp', widths=(4,)))


def test_a_requested_naming_is_not_replaced_by_a_better_one(network):
    state = weights.to_state_dict(network, naming='pytorch_cifar')
    with pytest.raises(errors.InputError, match=r"naming 'torchvision'\): missing: .*fc.weight"):
        weights.from_state_dict(network, state, naming='torchvision')


def test_the_logits_follow_the_weights(network, state):
    images = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    fresh = classifier(seed=1)
    moved = weights.from_state_dict(fresh, state).classifier
    np.testing.assert_array_equal(moved(images), network(images))
    assert np.abs(moved(images) - fresh(images)).max() > 1e-3
    assert dataclasses.replace(moved, variables=None) == dataclasses.replace(network, variables=None)

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import weights

RESNET = {'stage_sizes': (1, 2), 'widths': (4, 6)}


def classifier(name='resnet', seed=0, **options):
    """A small classifier with random values everywhere."""
    options = options or RESNET
    template = models.abstract(models.MODELS.make(name, num_classes=5, **options), (8, 8, 3), num_classes=5)
    rng = np.random.default_rng(seed)
    return template.replace(
        variables=jax.tree.map(lambda leaf: np.float32(rng.uniform(0.1, 1, leaf.shape)), template.variables)
    )


@pytest.fixture
def network():
    return classifier()


@pytest.fixture
def state(network):
    return weights.to_state_dict(network)


def assert_equal(one, other):
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


@pytest.mark.parametrize('naming', ['torchvision', 'pytorch_cifar'])
def test_a_round_trip_is_exact_and_finds_its_naming(network, naming):
    state = weights.to_state_dict(network, naming=naming)
    converted = weights.from_state_dict(classifier(seed=1), state)
    assert (converted.naming, converted.missing, converted.unused, converted.misshaped) == (naming, (), (), ())
    assert_equal(converted.classifier, network)
    assert converted.classifier.module == network.module


def test_the_common_cifar_naming(network):
    keys = weights.to_state_dict(classifier('cifar_resnet', depth=8, width=2), naming='pytorch_cifar')
    blocks = [f'layer{stage}.0.{part}' for stage in (1, 2, 3) for part in ('conv1', 'bn1', 'conv2', 'bn2')]
    assert {key.rsplit('.', 1)[0] for key in keys} == {'conv1', 'bn1', *blocks, 'linear'}


def test_attention_is_joined_and_split_again():
    network = classifier('vit', width=8, depth=1, heads=2, mlp_width=16)
    for naming in weights.namings(network):
        state = weights.to_state_dict(network, naming=naming)
        assert sum(value.size for value in state.values()) == sum(x.size for x in jax.tree.leaves(network.variables))
        (key,) = (key for key in state if key.endswith(('in_proj_weight', 'qkv.weight')))
        attention = network.variables['params']['block0']['attention']
        third = attention['key']['kernel'].reshape(8, 8).T  # [heads * size, width]
        np.testing.assert_array_equal(state[key][8:16], third)
        converted = weights.from_state_dict(classifier('vit', 1, width=8, depth=1, heads=2, mlp_width=16), state)
        assert_equal(converted.classifier, network)


def test_other_floats_become_float32(network, state):
    half = {key: value.astype(jnp.bfloat16) for key, value in state.items()}
    double = {key: value.astype(np.float64) for key, value in state.items()}
    assert_equal(weights.from_state_dict(classifier(seed=1), double).classifier, network)
    converted = weights.from_state_dict(classifier(seed=1), half).classifier
    assert {leaf.dtype for leaf in jax.tree.leaves(converted.variables)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(converted.variables['params']['fc']['bias'], state['fc.bias'], rtol=1e-2)


def without(state, key):
    return {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ('change', 'kind', 'message'),
    [
        (lambda s: without(s, 'layer2.0.bn1.bias'), 'missing', 'missing: layer2.0.bn1.bias; does'),
        (lambda s: {**s, 'extra.weight': np.zeros(2)}, 'unused', 'unused: extra.weight; does'),
        (
            lambda s: {**s, 'fc.weight': np.zeros((7, 6), np.float32)},
            'misshaped',
            r'misshaped: fc.weight has shape \[7, 6\] instead of \[5, 6\]; does',
        ),
    ],
)
def test_mismatches_are_listed_and_stop_the_import_unless_allowed(network, state, change, kind, message):
    fresh = classifier(seed=1)
    state = change(state)
    with pytest.raises(errors.InputError, match=rf'^weights.pth does not match .*{message} ') as caught:
        weights.from_state_dict(fresh, state, source='weights.pth')
    assert '\n' not in str(caught.value)
    converted = weights.from_state_dict(fresh, state, allow=[kind])
    assert len(getattr(converted, kind)) == 1
    variables = converted.classifier.variables['params']
    if kind == 'missing':
        np.testing.assert_array_equal(
            variables['layer2_0']['bn1']['bias'], fresh.variables['params']['layer2_0']['bn1']['bias']
        )
    if kind == 'misshaped':
        np.testing.assert_array_equal(variables['fc']['kernel'], fresh.variables['params']['fc']['kernel'])
    np.testing.assert_array_equal(variables['conv1']['kernel'], network.variables['params']['conv1']['kernel'])


def test_long_lists_are_shortened():
    state = {f'other.{i}': np.zeros(1, np.float32) for i in range(40)}
    message = r'missing: bn1.running_mean, .* and 36 more; unused: other.0, .* and 34 more; does'
    with pytest.raises(errors.InputError, match=message):
        weights.from_state_dict(classifier(), state)
    with pytest.raises(errors.InputError, match='has no tensor that matches the model'):
        weights.from_state_dict(classifier(), state, allow=weights.PROBLEMS)


def test_control_characters_in_keys_are_escaped(state):
    with pytest.raises(errors.InputError) as caught:
        weights.from_state_dict(classifier(), {**state, 'a\x1b[31m\nb': np.zeros(1)})
    assert r'unused: a\x1b[31m\nb;' in str(caught.value)


@pytest.mark.parametrize('naming', ['torchvision', 'microsoft', 'timm'])
def test_swin_of_many_stages(naming):
    options = {'patch_size': 1, 'width': 2, 'depths': (1,) * 4, 'heads': (1,) * 4, 'window_size': 1, 'mlp_ratio': 1}
    network = classifier('swin', **options)
    state = weights.to_state_dict(network, naming=naming)
    assert_equal(weights.from_state_dict(classifier('swin', 1, **options), state, naming=naming).classifier, network)
    index = {key for key in state if key.endswith('relative_position_index')}
    assert len(index) == (4 if naming == 'torchvision' else 0)
    assert naming == 'torchvision' or not any(key.startswith('features') for key in state)


def test_buffers_that_do_not_matter_are_ignored(network, state):
    state |= {'bn1.num_batches_tracked': np.int64(7), 'layer1.0.bn1.num_batches_tracked': np.int64(7)}
    assert weights.from_state_dict(classifier(seed=1), state).unused == ()


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (np.full((5,), np.nan, np.float32), r'fc.bias of the state dict holds values that are not finite'),
        (np.full((5,), 1e39), r'fc.bias of the state dict holds values that are not finite'),
        (np.arange(5), r'fc.bias of the state dict holds int64, not floating-point numbers'),
    ],
)
def test_bad_values(state, value, message):
    with pytest.raises(errors.InputError, match=message):
        weights.from_state_dict(classifier(), {**state, 'fc.bias': value})


def test_bad_names(network, state):
    with pytest.raises(errors.InputError, match="unknown naming of ResNet 'torchvison'; did you mean 'torchvision'"):
        weights.from_state_dict(network, state, naming='torchvison')
    with pytest.raises(errors.InputError, match="unknown naming of ResNet 'timm'; known: pytorch_cifar, torchvision"):
        weights.to_state_dict(network, naming='timm')
    with pytest.raises(errors.InputError, match="unknown problem to allow 'mising'; did you mean 'missing'"):
        weights.from_state_dict(network, state, allow=['mising'])
    mlp = classifier('mlp', widths=(4,))
    with pytest.raises(
        errors.InputError, match='no PyTorch naming is known for models of the family MLP; known families: '
    ):
        weights.to_state_dict(mlp)


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

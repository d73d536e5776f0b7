import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from branched import network, params_of, trace, variables_of

from rfn_jax.core import errors
from rfn_jax.models.families import googlenet


@pytest.mark.parametrize(
    ('height', 'width', 'sizes'),
    [
        (224, 224, [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)]),
        (37, 50, [(19, 25), (9, 12), (4, 6), (2, 3), (1, 2)]),
        (15, 16, [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]),
    ],
)
def test_pools_keep_windows_that_are_not_full(height, width, sizes):
    _, _, calls = trace(network('googlenet'), height, width, False)
    outputs = {module.name: shape[1:3] for module, shape in calls if len(module.path) == 1 and shape}
    assert [outputs[name] for name in ('conv1', 'conv2', 'inception3a', 'inception4a', 'inception5b')] == sizes


@pytest.mark.parametrize(('size', 'sizes'), [(32, [32, 32, 16, 8]), (33, [33, 33, 17, 9]), (1, [1] * 4)])
def test_the_form_for_small_images_halves_them_twice(size, sizes):
    _, _, calls = trace(network('cifar_googlenet'), size, size, False)
    outputs = {module.name: shape[1] for module, shape in calls if len(module.path) == 1 and len(shape) == 4}
    assert [outputs[name] for name in ('conv1', 'inception3a', 'inception4a', 'inception5b')] == sizes


def test_the_form_for_small_images_has_the_same_blocks_and_no_auxiliary_heads():
    full, small = (variables_of(network(name))['params'] for name in ('googlenet', 'cifar_googlenet'))
    assert set(full) - set(small) == {'aux1', 'aux2', 'conv2', 'conv3'}
    assert all(small[name] == full[name] for name in small if name != 'conv1')
    assert params_of(network('cifar_googlenet', width=1.0))['conv1', 'conv', 'kernel'].shape == (3, 3, 3, 192)


def test_the_third_branch_has_the_kernel_of_torchvision():
    kernels = [
        leaf.shape[:2] for path, leaf in params_of(network('googlenet')).items() if path[1:3] == ('branch3_1', 'conv')
    ]
    assert kernels == [(3, 3)] * len(googlenet.BLOCKS)


def test_training_records_the_logits_of_the_auxiliary_heads():
    variables = variables_of(network('googlenet'))
    assert {'aux1', 'aux2'} < set(variables['params'])  # made without training
    logits, changes, _ = trace(network('googlenet'), 15, 15, True)
    assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)
    recorded = flax.traverse_util.flatten_dict(changes['auxiliary_logits'])
    assert {path[0] for path in recorded} == {'aux1', 'aux2'}
    for (head,) in recorded.values():
        assert (head.shape, head.dtype) == ((2, 5), jnp.float32)
    assert jax.tree.structure(changes['batch_stats']) == jax.tree.structure(variables['batch_stats'])
    assert 'auxiliary_logits' not in trace(network('googlenet'), 15, 16, False)[1]


def test_each_auxiliary_head_reads_its_own_features():
    calls = trace(network('googlenet'), 15, 15, True)[2]
    names = [module.name for module, _ in calls if len(module.path) == 1]
    assert names[names.index('aux1') - 1] == 'inception4a'
    assert names[names.index('aux2') - 1] == 'inception4d'


def test_without_auxiliary_heads_the_rest_is_the_same():
    module = network('googlenet', auxiliary=False)
    full, without = variables_of(network('googlenet')), variables_of(module)
    assert without == {kind: {k: v for k, v in full[kind].items() if k not in ('aux1', 'aux2')} for kind in full}
    assert 'auxiliary_logits' not in trace(module, 15, 15, True)[1]


def test_dropout_is_before_the_last_layers_and_only_in_training():
    def rates(calls):
        drops = [module for module, _ in calls if isinstance(module, nn.Dropout) and not module.deterministic]
        return {module.path[0]: module.rate for module in drops}

    training, evaluation = (trace(network('googlenet'), *size)[2] for size in ((15, 15, True), (15, 16, False)))
    assert rates(training) == {'dropout': 0.2, 'aux1': 0.7, 'aux2': 0.7}
    assert rates(evaluation) == {}


@pytest.mark.parametrize('option', ['dropout', 'auxiliary_dropout'])
def test_nothing_is_drawn_without_dropout(option):
    off = network('googlenet', dropout=0.0, auxiliary_dropout=0.0)
    trace(off, 15, 15, True, seed=None)
    with pytest.raises(flax.errors.InvalidRngError, match='dropout'):
        trace(off.clone(**{option: 0.5}), 15, 15, True, seed=None)


def test_there_is_at_least_one_channel():
    assert params_of(network('googlenet', width=1e-6))['conv1', 'conv', 'kernel'].shape == (7, 7, 3, 1)


@pytest.mark.parametrize(('height', 'width'), [(14, 15), (224, 1)])
def test_an_image_that_is_too_small_is_refused(height, width):
    with pytest.raises(
        errors.InputError, match=rf'{height} x {width} pixels is too small for this GoogLeNet.* 15 rows'
    ):
        variables_of(network('googlenet'), height, width)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'width': 0.0}, 'width must be a finite number above 0, got 0.0'),
        ({'width': float('inf')}, 'width must be a finite number above 0, got inf'),
        ({'auxiliary_weight': -0.1}, 'auxiliary_weight must be a finite number at least 0, got -0.1'),
        ({'auxiliary_weight': float('nan')}, 'auxiliary_weight must be a finite number at least 0, got nan'),
        ({'dropout': 1.0}, r'^dropout must be a finite number at least 0 and below 1, got 1.0'),
        ({'auxiliary_dropout': -0.5}, r'auxiliary_dropout must be a finite number at least 0 and below 1, got -0.5'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(errors.InputError, match=message):
        network('googlenet', **options)

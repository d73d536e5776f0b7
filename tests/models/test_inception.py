import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from branched import network, params_of, trace, variables_of

from rfn_jax.core import errors
from rfn_jax.models import branches
from rfn_jax.models.families import inception

O0 = {'xla_backend_optimization_level': 0}


@pytest.mark.parametrize(
    ('name', 'size', 'train', 'sizes'),
    [
        ('inception_v3', (299, 299), True, [(149, 149), (147, 147), (73, 73), (71, 71), (35, 35), (17, 17), (8, 8)]),
        ('inception_v3', (75, 102), False, [(37, 50), (35, 48), (17, 23), (15, 21), (7, 10), (3, 4), (1, 1)]),
        ('cifar_inception_v3', (32, 33), False, [(32, 33), (32, 33), (15, 16), (7, 7)]),
        ('cifar_inception_v3', (7, 8), True, [(7, 8), (7, 8), (3, 3), (1, 1)]),
    ],
)
def test_the_features_shrink_as_in_pytorch(name, size, train, sizes):
    _, _, calls = trace(network(name), *size, train)
    outputs = {module.name: shape[1:3] for module, shape in calls if len(module.path) == 1 and shape}
    stem = ['Conv2d_1a_3x3', *(['Conv2d_2b_3x3', 'Conv2d_3b_1x1', 'Conv2d_4a_3x3'] if name == 'inception_v3' else [])]
    assert [outputs[layer] for layer in (*stem, 'Mixed_5d', 'Mixed_6e', 'Mixed_7c')] == sizes


def test_long_kernels_are_factorized():
    kernels = {
        '/'.join(path[:2]): leaf.shape[:2]
        for path, leaf in params_of(network('inception_v3')).items()
        if path[-1] == 'kernel' and leaf.ndim == 4 and leaf.shape[0] != leaf.shape[1]
    }
    rows = [name for name, shape in kernels.items() if shape in ((1, 7), (1, 3))]
    assert len(rows) == 4 * 3 + 1 + 2 * 2
    assert len(kernels) - len(rows) == 4 * 3 + 1 + 2 * 2
    assert kernels['Mixed_6b/branch7x7_2'] == kernels['Mixed_6b/branch7x7dbl_5'] == (1, 7)
    assert kernels['Mixed_7b/branch3x3_2a'] == (1, 3)


def test_training_records_the_logits_of_the_auxiliary_head():
    logits, changes, _ = trace(network('inception_v3'), 299, 299, True)
    assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)
    ((path, (head,)),) = flax.traverse_util.flatten_dict(changes['auxiliary_logits']).items()
    assert path[0] == 'AuxLogits'
    assert (head.shape, head.dtype) == ((2, 5), jnp.float32)
    assert jax.tree.structure(changes['batch_stats']) == jax.tree.structure(
        variables_of(network('inception_v3'))['batch_stats']
    )
    assert 'auxiliary_logits' not in trace(network('inception_v3'), 75, 102, False)[1]


def test_the_auxiliary_head_reads_the_features_before_the_last_reduction():
    calls = trace(network('inception_v3'), 299, 299, True)[2]
    names = [module.name for module, _ in calls if len(module.path) == 1]
    at = names.index('AuxLogits')
    assert (names[at - 1], names[at + 1]) == ('Mixed_6e', 'Mixed_7a')


def test_images_too_small_for_the_auxiliary_head_can_be_evaluated_but_not_trained_on():
    module = network('inception_v3')
    small = variables_of(module, 75, 75)
    assert 'AuxLogits' in small['params']
    assert small == variables_of(module, 299, 299)
    with pytest.raises(errors.InputError, match=r'16 x 17 features are too few for the auxiliary head .* 17 rows'):
        trace(module, 298, 299, True)


def test_without_the_auxiliary_head_the_rest_is_the_same_and_trains_on_small_images():
    module = network('inception_v3', auxiliary=False)
    full = variables_of(network('inception_v3'))
    assert variables_of(module) == {
        kind: {name: v for name, v in full[kind].items() if name != 'AuxLogits'} for kind in full
    }
    assert 'auxiliary_logits' not in trace(module, 75, 75, True)[1]


def test_the_form_for_small_images_has_the_same_blocks_and_no_auxiliary_head():
    full, small = (variables_of(network(name))['params'] for name in ('inception_v3', 'cifar_inception_v3'))
    stem = {name for name in full if name.startswith('Conv2d_')}
    assert set(full) - set(small) == {'AuxLogits', *stem} - {'Conv2d_1a_3x3'}
    assert all(small[name] == full[name] for name in small if name != 'Conv2d_1a_3x3')
    assert params_of(network('cifar_inception_v3', width=1.0))['Conv2d_1a_3x3', 'conv', 'kernel'].shape == (
        3,
        3,
        3,
        192,
    )
    assert 'auxiliary_logits' not in trace(network('cifar_inception_v3'), 7, 8, True)[1]


@pytest.mark.parametrize(
    ('name', 'training', 'evaluation'),
    [('inception_v3', (299, 299), (75, 102)), ('cifar_inception_v3', (7, 8), (32, 33))],
)
def test_dropout_is_before_the_last_layer_and_only_in_training(name, training, evaluation):
    rates = {}
    for size, train in ((training, True), (evaluation, False)):
        drops = [module for module, _ in trace(network(name), *size, train)[2] if isinstance(module, nn.Dropout)]
        rates[train] = [(drop.path, drop.rate) for drop in drops if not drop.deterministic]
    assert rates == {True: [(('dropout',), 0.5)], False: []}


def test_nothing_is_drawn_without_dropout():
    trace(network('cifar_inception_v3', dropout=0.0), 7, 8, True, seed=None)
    with pytest.raises(flax.errors.InvalidRngError, match='dropout'):
        trace(network('cifar_inception_v3'), 7, 8, True, seed=None)


def test_the_auxiliary_head_starts_with_the_deviations_of_torchvision():
    head = inception.AuxiliaryHead(50, branches.Convolutions(1 / 4, 0.1, jnp.float32))
    size = inception.AuxiliaryHead.MIN_SIZE
    init = jax.jit(
        lambda: head.init(jax.random.key(0), jnp.zeros((1, size, size, 40)), train=False), compiler_options=O0
    )
    params = init()['params']
    found = {name: float(leaf.get('conv', leaf)['kernel'].std()) for name, leaf in params.items()}
    assert found == pytest.approx({'conv0': 0.1, 'conv1': 0.01, 'fc': 0.001}, rel=0.06)


@pytest.mark.parametrize(
    ('name', 'size', 'least'),
    [('inception_v3', (74, 299), 75), ('inception_v3', (299, 32), 75), ('cifar_inception_v3', (6, 32), 7)],
)
def test_an_image_that_is_too_small_is_refused(name, size, least):
    with pytest.raises(errors.InputError, match=rf'{size[0]} x {size[1]} pixels is too small .* {least} rows'):
        variables_of(network(name), *size)


@pytest.mark.parametrize('name', ['inception_v3', 'cifar_inception_v3'])
@pytest.mark.parametrize(('option', 'value'), [('width', -1.0), ('dropout', 1.5)])
def test_bad_options(name, option, value):
    with pytest.raises(errors.InputError, match=f'{option} must be .*, got {value}'):
        network(name, **{option: value})


def test_a_bad_auxiliary_weight():
    with pytest.raises(errors.InputError, match='auxiliary_weight must be a finite number at least 0, got -1'):
        network('inception_v3', auxiliary_weight=-1)

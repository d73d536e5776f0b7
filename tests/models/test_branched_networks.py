"""GoogLeNet and Inception v3, with few channels: traced without computing anything."""

import functools

import flax
import jax
import jax.numpy as jnp
import pytest
from shapes import layers, shapes_of, trace
from small_models import slow, slow_but

from rfn_jax import models
from rfn_jax.core import errors

WIDTH = {'googlenet': 1 / 32, 'inception_v3': 1 / 64}
SMALLEST = {'googlenet': (15, 15, 3), 'inception_v3': (75, 75, 3)}  # images
TRAINABLE = {'googlenet': (15, 15, 3), 'inception_v3': (299, 299, 3)}
HEADS = {'googlenet': ['aux1', 'aux2'], 'inception_v3': ['AuxLogits']}
FAMILIES = pytest.mark.parametrize('family', slow_but(['googlenet'], WIDTH))


@functools.cache
def network(name, **options):
    """A narrow network in bfloat16, so that a last layer computed in bfloat16 would be noticed."""
    options = {'width': WIDTH[name.removeprefix('cifar_')], 'dtype': jnp.bfloat16} | options
    return models.MODELS.make(name, num_classes=5, **options)


def variables_of(family, **options):
    return shapes_of(network(family, **options), SMALLEST[family])


def params_of(family, **options):
    """Shapes of the parameters by path."""
    return flax.traverse_util.flatten_dict(variables_of(family, **options)['params'], sep='/')


SHORT = {'googlenet': ('conv1', 'inception3a', 'inception4a', 'inception5b')}
SHORT |= {'inception_v3': ('Conv2d_1a_3x3', 'Mixed_5d', 'Mixed_6e', 'Mixed_7c')}
LONG = {'googlenet': ('conv1', 'conv2', 'inception3a', 'inception4a', 'inception5b')}
LONG |= {
    'inception_v3': ('Conv2d_1a_3x3', 'Conv2d_2b_3x3', 'Conv2d_3b_1x1', 'Conv2d_4a_3x3', *SHORT['inception_v3'][1:])
}


@pytest.mark.parametrize(
    ('name', 'shape', 'train', 'sizes'),
    [
        ('googlenet', (37, 50), False, [(19, 25), (9, 12), (4, 6), (2, 3), (1, 2)]),
        ('cifar_googlenet', (33, 33), False, [33, 33, 17, 9]),
        ('cifar_inception_v3', (7, 8), True, [(7, 8), (7, 8), (3, 3), (1, 1)]),
        slow('googlenet', (224, 224), False, [112, 56, 28, 14, 7]),
        slow('googlenet', (15, 16), False, [8, 4, 2, 1, 1]),
        slow('cifar_googlenet', (32, 32), False, [32, 32, 16, 8]),
        slow('cifar_googlenet', (1, 1), False, [1, 1, 1, 1]),
        slow('inception_v3', (299, 299), True, [149, 147, 73, 71, 35, 17, 8]),
        slow('inception_v3', (75, 102), False, [(37, 50), (35, 48), (17, 23), (15, 21), (7, 10), (3, 4), (1, 1)]),
        slow('cifar_inception_v3', (32, 33), False, [(32, 33), (32, 33), (15, 16), (7, 7)]),
    ],
)
def test_the_features_shrink_as_in_pytorch(name, shape, train, sizes):
    found = layers(network(name), (*shape, 3), train=train)
    family = name.removeprefix('cifar_')
    expected = [(size, size) if isinstance(size, int) else size for size in sizes]
    assert [found[layer].out.shape[1:3] for layer in (LONG if name in LONG else SHORT)[family]] == expected


@FAMILIES
def test_training_records_the_logits_of_the_auxiliary_heads(family):
    variables = variables_of(family)
    assert set(HEADS[family]) < set(variables['params'])  # made without training
    logits, changes, _ = trace(network(family), TRAINABLE[family], train=True)
    assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)
    recorded = flax.traverse_util.flatten_dict(changes['auxiliary_logits'])
    assert sorted(path[0] for path in recorded) == HEADS[family]
    for (head,) in recorded.values():
        assert (head.shape, head.dtype) == ((2, 5), jnp.float32)
    assert jax.tree.structure(changes['batch_stats']) == jax.tree.structure(variables['batch_stats'])
    assert 'auxiliary_logits' not in trace(network(family), SMALLEST[family]).changes


@FAMILIES
def test_without_auxiliary_heads_the_rest_is_the_same_and_trains_on_small_images(family):
    full, without = variables_of(family), variables_of(family, auxiliary=False)
    assert without == {kind: {k: v for k, v in full[kind].items() if k not in HEADS[family]} for kind in full}
    trained = trace(network(family, auxiliary=False), SMALLEST[family], train=True)
    assert 'auxiliary_logits' not in trained.changes


@pytest.mark.slow
@pytest.mark.parametrize(
    ('family', 'first', 'stem'),
    [
        ('googlenet', 'conv1', ['conv2', 'conv3']),
        ('inception_v3', 'Conv2d_1a_3x3', ['Conv2d_2a_3x3', 'Conv2d_2b_3x3', 'Conv2d_3b_1x1', 'Conv2d_4a_3x3']),
    ],
)
def test_the_form_for_small_images_has_the_same_blocks_and_no_auxiliary_heads(family, first, stem):
    full, small = variables_of(family)['params'], shapes_of(network(f'cifar_{family}'))['params']
    assert set(full) - set(small) == {*HEADS[family], *stem}
    assert all(small[name] == full[name] for name in small if name != first)
    wide = shapes_of(network(f'cifar_{family}', width=1.0))['params']
    assert wide[first]['conv']['kernel'].shape == (3, 3, 3, 192)
    assert 'auxiliary_logits' not in trace(network(f'cifar_{family}'), train=True).changes


@pytest.mark.slow
@pytest.mark.parametrize('family', list(WIDTH))
def test_width_scales_all_channels(family):
    full, half = (params_of(family, width=width) for width in (1.0, 0.5))
    for path, leaf in full.items():
        fixed = 2 if leaf.ndim == 4 else 0  # rows and columns
        expected = [n if axis < fixed or n in (3, 5) else n // 2 for axis, n in enumerate(leaf.shape)]
        assert list(half[path].shape) == expected, path
    # There is at least one channel.
    assert params_of('googlenet', width=1e-6)['conv1/conv/kernel'].shape == (7, 7, 3, 1)


@pytest.mark.slow
def test_images_too_small_for_the_auxiliary_head_of_inception_can_be_evaluated_but_not_trained_on():
    module = network('inception_v3')
    assert shapes_of(module, (75, 75, 3)) == shapes_of(module, (299, 299, 3))
    with pytest.raises(errors.InputError, match=r'16 x 17 features are too few for the auxiliary head .* 17 rows'):
        trace(module, (298, 299, 3), train=True)

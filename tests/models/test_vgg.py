import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shapes import calls, count, draws, places, shapes_of
from textbook_layers import batch_norm, conv, randomized, relu

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models.families import vgg

SMALL = {'stages': ((3, 4), (5,))}
LARGE = {**SMALL, 'pool_size': 2, 'hidden_widths': (7, 8)}


def network(variables, x, stages, *, pool_size=1, hidden_widths=(), batch_normalized=True):
    """VGG in NumPy, float64."""
    p, s = variables['params'], variables.get('batch_stats')
    x = np.float64(x)
    for stage, widths in enumerate(stages, start=1):
        for index in range(len(widths)):
            name = f'{stage}_{index}'
            x = conv(x, p[f'conv{name}']['kernel'], 1) + p[f'conv{name}']['bias']
            x = relu(batch_norm(x, p[f'bn{name}'], s[f'bn{name}']) if batch_normalized else x)
        n, h, w, c = x.shape
        x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
    # An image of 2 rows and columns has as many bins of one pixel, and one of 3 has bins of two that overlap.
    width = x.shape[1] - pool_size + 1
    bins = [[x[:, i : i + width, j : j + width].mean(axis=(1, 2)) for j in range(pool_size)] for i in range(pool_size)]
    x = np.moveaxis(np.array(bins), (2, 3), (0, 1)).reshape(len(x), -1)  # channels first
    for number in range(1, len(hidden_widths) + 1):
        x = relu(x @ p[f'fc{number}']['kernel'] + p[f'fc{number}']['bias'])
    return x @ p['fc']['kernel'] + p['fc']['bias']


@pytest.mark.parametrize('options', [SMALL, LARGE])
@pytest.mark.parametrize('batch_normalized', [True, False])
@pytest.mark.parametrize('size', [8, 13])
def test_the_network_equals_the_textbook(options, batch_normalized, size):
    module = vgg.vgg(6, **options, batch_norm=batch_normalized)
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    variables = randomized(shapes_of(module, size))
    logits = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, x)
    expected = network(variables, x, **options, batch_normalized=batch_normalized)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('depth', 'widths'),
    [
        (11, [64, 128, 256, 256, 512, 512, 512, 512]),
        (13, [64] * 2 + [128] * 2 + [256] * 2 + [512] * 4),
        (16, [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6),
        (19, [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8),
    ],
)
def test_named_models(depth, widths):
    for name, normalized, dense in (
        (f'cifar_vgg{depth}', True, [(512, 10)]),
        (f'vgg{depth}', False, [(25088, 4096), (4096, 4096), (4096, 10)]),
        (f'vgg{depth}_bn', True, [(25088, 4096), (4096, 4096), (4096, 10)]),
    ):
        params = shapes_of(models.MODELS.make(name, num_classes=10), 32)['params']
        kernels = {layer: leaves['kernel'].shape for layer, leaves in params.items() if 'kernel' in leaves}
        assert [kernels[layer][-1] for layer in sorted(kernels) if layer.startswith('conv')] == widths
        assert [kernels[layer] for layer in ('fc1', 'fc2', 'fc') if layer in kernels] == dense
        assert sum(layer.startswith('bn') for layer in params) == normalized * len(widths)


# https://github.com/kuangliu/pytorch-cifar
@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('cifar_vgg11', 9_231_114),
        ('cifar_vgg13', 9_416_010),
        ('cifar_vgg16', 14_728_266),
        ('cifar_vgg19', 20_040_522),
    ],
)
def test_the_number_of_parameters(name, expected):
    assert count(models.MODELS.make(name, num_classes=10), 32) == expected


FEATURES = {
    **{'conv1_0': 'features.0', 'bn1_0': 'features.1', 'conv1_1': 'features.3', 'bn1_1': 'features.4'},
    **{'conv2_0': 'features.7', 'bn2_0': 'features.8'},
}
DENSE = {'fc1': 'classifier.0', 'fc2': 'classifier.3', 'fc': 'classifier.6'}


@pytest.mark.parametrize(
    ('options', 'naming', 'expected'),
    [
        (
            LARGE,
            'torchvision',
            FEATURES | DENSE,
        ),
        (
            LARGE | {'batch_norm': False},
            'torchvision',
            {'conv1_0': 'features.0', 'conv1_1': 'features.2', 'conv2_0': 'features.5'} | DENSE,
        ),
        (
            SMALL,
            'pytorch_cifar',
            FEATURES | {'fc': 'classifier'},
        ),
    ],
)
def test_keys_of_state_dicts(options, naming, expected):
    assert places(vgg.vgg(5, **options), naming) == expected


def test_dropout_is_in_training_only_and_after_each_hidden_layer():
    found = calls(vgg.vgg(5, **LARGE), (nn.Dense, nn.Dropout))
    assert list(found) == ['fc1', 'dropout1', 'fc2', 'dropout2', 'fc']
    assert {found[name][0].rate for name in ('dropout1', 'dropout2')} == {0.5}
    assert draws(vgg.vgg(5, **LARGE), train=True)
    assert not draws(vgg.vgg(5, **LARGE), train=False)
    assert not draws(vgg.vgg(5, **LARGE, dropout=0.0), train=True)


def test_without_hidden_layers_there_is_no_dropout():
    assert vgg.vgg(5, **SMALL) == vgg.vgg(5, **SMALL, dropout=0.0) == vgg.VGG(5, SMALL['stages'])
    assert not draws(vgg.vgg(5, **SMALL), train=True)
    assert vgg.vgg(5, **LARGE) == vgg.vgg(5, **LARGE, dropout=0.5)
    with pytest.raises(
        errors.InputError, match=r'dropout 0.5 .* hidden layers, and without hidden_widths there are none'
    ):
        vgg.vgg(5, **SMALL, dropout=0.5)


def test_hidden_layers_are_computed_in_the_type_of_the_model_and_the_last_one_in_float32():
    found = calls(vgg.vgg(5, **LARGE, dtype=jnp.bfloat16), nn.Dense)
    assert {name: x.dtype.name for name, (_, x) in found.items()} == {
        'fc1': 'bfloat16',
        'fc2': 'bfloat16',
        'fc': 'float32',
    }


@pytest.mark.parametrize(
    ('options', 'names', 'std'), [(LARGE, ('fc1', 'fc2', 'fc'), 0.01), (SMALL, ('fc',), 1 / np.sqrt(3 * 200))]
)
def test_dense_layers_start_as_in_pytorch(options, names, std):
    found = calls(vgg.vgg(5, **options), nn.Dense)
    for name in names:
        kernel = found[name][0].kernel_init(jax.random.key(0), (200, 50))
        assert float(kernel.std()) == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize('name', ['cifar_vgg13', 'vgg13', 'vgg13_bn'])
@pytest.mark.parametrize('size', [31, 16, 1])
def test_an_image_that_is_too_small_is_refused(name, size):
    module = models.MODELS.make(name, num_classes=10)
    with pytest.raises(errors.InputError, match=rf'{size} x 32 pixels .* at least 32'):
        models.abstract(module, (size, 32, 3), num_classes=10)


@pytest.mark.parametrize(
    ('stages', 'message'),
    [
        ((), r'a VGG needs at least one stage, .* got \(\)'),
        (((4,), ()), r'each stage at least one width, got \(\(4,\), \(\)\)'),
        (((4, 0),), r'stages\[0\]\[1\] must be an integer of at least 1, got 0'),
        (((4,), (-1,)), r'stages\[1\]\[0\] must be an integer of at least 1, got -1'),
    ],
)
def test_bad_stages(stages, message):
    with pytest.raises(errors.InputError, match=message):
        vgg.vgg(10, stages=stages)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'pool_size': 0}, 'pool_size must be an integer of at least 1, got 0'),
        ({'hidden_widths': (8, 0)}, r'hidden_widths\[1\] must be an integer of at least 1, got 0'),
        ({'dropout': 1.0}, r'dropout must be a finite number at least 0 and below 1, got 1.0'),
    ],
)
def test_bad_heads(options, message):
    with pytest.raises(errors.InputError, match=message):
        models.MODELS.make('vgg11', num_classes=10, **options)

import flax.linen as nn
import jax
import numpy as np
import pytest
from shapes import calls, count, places, rows, shapes_of

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import hooks

SMALL = {'width_multiplier': 0.25, 'stages': ((16, 1, 1), (32, 2, 2))}


def small(**options):
    return models.MODELS.make('mobilenet_v1', num_classes=5, **{**SMALL, **options})


def textbook(variables, x, strides, largest):
    """The network in NumPy, float64; `largest` is where the activations are capped."""
    p, s = variables['params'], variables['batch_stats']

    def conv_norm(x, path, stride, depthwise=False):
        params, stats = p, s
        for part in path:
            params, stats = params[part], stats[part]
        kernel, margin = np.float64(params['conv']['kernel']), params['conv']['kernel'].shape[0] // 2
        x = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))[:, ::stride, ::stride]
        if depthwise:
            y = np.einsum('nijcab,abc->nijc', windows, kernel[:, :, 0])
        else:
            y = np.einsum('nijcab,abcd->nijd', windows, kernel)
        bn, (mean, var) = params['bn'], (stats['bn'][name] for name in ('mean', 'var'))
        return np.clip((y - mean) / np.sqrt(var + 1e-5) * bn['scale'] + bn['bias'], 0, largest)

    x = conv_norm(np.float64(x), ['features_0'], strides[0])
    for number, stride in enumerate(strides[1:], start=1):
        x = conv_norm(x, [f'features_{number}', 'depthwise'], stride, depthwise=True)
        x = conv_norm(x, [f'features_{number}', 'pointwise'], 1)
    return x.mean(axis=(1, 2)) @ p['classifier']['kernel'] + p['classifier']['bias']


@pytest.mark.parametrize(('activation', 'largest'), [('relu', np.inf), ('relu6', 6)])
@pytest.mark.parametrize('size', [8, 11])
def test_the_network_equals_the_textbook(activation, largest, size):
    module, rng = small(activation=activation), np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: (rng.uniform(0.5, 2, leaf.shape) if leaf.ndim == 1 else rng.normal(size=leaf.shape)).astype('f4'),
        shapes_of(module, size),
    )
    x = rng.normal(size=(2, size, size, 3)).astype(np.float32)
    logits = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, x)
    expected = textbook(variables, x, (2, 1, 2, 1), largest)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert (np.abs(textbook(variables, x, (2, 1, 2, 1), np.inf) - expected).max() > 1) == (activation == 'relu6')


# Trainable parameters of Keras's MobileNet(alpha=...), which have the same shapes; pytorch-cifar's has 3,217,226.
@pytest.mark.parametrize(
    ('name', 'options', 'num_classes', 'expected'),
    [
        ('mobilenet_v1', {'width_multiplier': 0.25}, 1000, 470_072),
        ('mobilenet_v1', {'width_multiplier': 0.5}, 1000, 1_331_592),
        ('mobilenet_v1', {'width_multiplier': 0.75}, 1000, 2_585_560),
        ('mobilenet_v1', {}, 1000, 4_231_976),
        ('cifar_mobilenet_v1', {}, 10, 3_217_226),
    ],
)
def test_the_number_of_parameters(name, options, num_classes, expected):
    assert count(models.MODELS.make(name, num_classes=num_classes, **options)) == expected


@pytest.mark.parametrize(
    ('name', 'size', 'expected'),
    [
        ('mobilenet_v1', 224, [112] * 2 + [56] * 2 + [28] * 2 + [14] * 6 + [7] * 2),
        ('mobilenet_v1', 1, [1] * 14),
        ('cifar_mobilenet_v1', 32, [32] * 2 + [16] * 2 + [8] * 2 + [4] * 6 + [2] * 2),
    ],
)
def test_strides(name, size, expected):
    found = rows(models.MODELS.make(name, num_classes=10), size)
    assert found == {f'features_{number}': row for number, row in enumerate(expected)}


# The order of the parts: the first convolution, both of the first block, those of the third block, and the dense layer.
PATHS = [
    *('features_0/conv', 'features_0/bn'),
    *(f'features_{n}/{part}/{kind}' for n in (1, 3) for part in ('depthwise', 'pointwise') for kind in ('conv', 'bn')),
    'classifier',
]


@pytest.mark.parametrize(
    ('naming', 'expected'),
    [
        (
            'pytorch_mobilenet',
            'model.0.0 model.0.1 model.1.0 model.1.1 model.1.3 model.1.4 model.3.0 model.3.1 model.3.3 model.3.4 fc',
        ),
        (
            'pytorch_cifar',
            'conv1 bn1 layers.0.conv1 layers.0.bn1 layers.0.conv2 layers.0.bn2 layers.2.conv1 layers.2.bn1 layers.2.conv2 '
            'layers.2.bn2 linear',
        ),
        (
            'timm',
            'conv_stem bn1 blocks.0.0.conv_dw blocks.0.0.bn1 blocks.0.0.conv_pw blocks.0.0.bn2 blocks.1.1.conv_dw '
            'blocks.1.1.bn1 blocks.1.1.conv_pw blocks.1.1.bn2 classifier',
        ),
    ],
)
def test_keys_of_state_dicts(naming, expected):
    found = places(small(), naming)
    assert [found[path] for path in PATHS] == expected.split()
    assert len(set(found.values())) == len(found) == 15


def test_dropout_comes_before_the_dense_layer_if_it_is_asked_for():
    dropout, features = calls(small(dropout=0.1), nn.Dropout)['dropout']
    assert (dropout.rate, features.shape) == (0.1, (1, 8))
    assert not calls(small(), nn.Dropout)


def test_activations():
    assert {type(module) for module, _ in calls(small(activation='relu6'), hooks.Activation).values()} == {hooks.Relu6}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'stages': ()}, r'stages must have at least one row of channels, blocks, stride, got \(\)'),
        ({'stages': ((0, 1, 1),)}, r'channels of stages\[0\] must be an integer of at least 1, got 0'),
        ({'width_multiplier': 0.0}, 'width_multiplier must be a finite number above 0, got 0.0'),
        ({'stem_strides': 0}, 'stem_strides must be an integer of at least 1, got 0'),
        ({'activation': 'gelu'}, "'gelu'"),
        ({'dropout': 1.0}, r'dropout must be a finite number at least 0 and below 1, got 1.0'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(errors.InputError, match=message):
        small(**options)

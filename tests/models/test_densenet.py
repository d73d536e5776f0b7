import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shapes import draws
from textbook_layers import batch_norm, conv, randomized, relu

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models.families import densenet

O0 = {'xla_backend_optimization_level': 0}
SMALL_STEM = {'stem_kernel': 3, 'stem_strides': 1, 'stem_pool': False}


def shapes_of(module, *shape, **call):
    return jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(shape), **call))


# The network of the paper in NumPy, float64.


def windows(x, size, stride):
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]


def norm_relu(x, params, stats):
    return relu(batch_norm(x, params, stats))


def network(variables, x, *, block_sizes, stem_strides=2, stem_pool=True, **_):
    p, s = variables['params'], variables['batch_stats']
    x = conv(np.float64(x), p['conv0']['kernel'], stem_strides)
    x = norm_relu(x, p['norm0'], s['norm0'])
    if stem_pool:
        x = windows(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf), 3, 2).max(axis=(-2, -1))
    for block, size in enumerate(block_sizes, start=1):
        for index in range(1, size + 1):
            name = f'denseblock{block}_denselayer{index}'
            y = conv(norm_relu(x, p[name]['norm1'], s[name]['norm1']), p[name]['conv1']['kernel'], 1)
            y = conv(norm_relu(y, p[name]['norm2'], s[name]['norm2']), p[name]['conv2']['kernel'], 1)
            x = np.concatenate([x, y], axis=-1)
        if block < len(block_sizes):
            name = f'transition{block}'
            x = conv(norm_relu(x, p[name]['norm'], s[name]['norm']), p[name]['conv']['kernel'], 1)
            x = windows(x, 2, 2).mean(axis=(-2, -1))
    x = norm_relu(x, p['norm5'], s['norm5']).mean(axis=(1, 2))
    return x @ p['classifier']['kernel'] + p['classifier']['bias']


@pytest.mark.parametrize(
    ('height', 'width', 'options'), [(8, 9, SMALL_STEM), (14, 17, {}), (9, 11, {'stem_kernel': 5, 'stem_pool': False})]
)
def test_the_network_equals_the_textbook(height, width, options):
    module = densenet.densenet(6, block_sizes=(2, 1), growth_rate=3, initial_features=5, bottleneck=2, **options)
    variables = randomized(shapes_of(module, 1, height, width, 3))
    x = np.random.default_rng(1).normal(size=(2, height, width, 3)).astype(np.float32)
    logits = jax.jit(lambda v, x: module.apply(v, x, train=False), compiler_options=O0)(variables, x)
    expected = network(variables, x, block_sizes=(2, 1), **options)
    assert np.ptp(expected, axis=0).max() > 0.01  # the images do differ
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_dropout_acts_on_the_new_channels_in_training():
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    layer, plain = (densenet.DenseLayer(16, 2, dropout, jnp.float32) for dropout in (0.75, 0.0))
    variables = randomized(shapes_of(layer, 2, 8, 8, 3, train=False))

    def apply(layer, **options):
        function = jax.jit(lambda v, x: layer.apply(v, x, **options), compiler_options=O0)
        return function(variables, x)

    dropped, _ = apply(layer, train=True, mutable=['batch_stats'], rngs={'dropout': jax.random.key(0)})
    full, _ = apply(plain, train=True, mutable=['batch_stats'])
    np.testing.assert_array_equal(dropped[..., :3], x)
    kept = np.asarray(dropped != 0)[..., 3:]
    assert kept.mean() == pytest.approx(0.25, abs=0.05)
    np.testing.assert_allclose(dropped[..., 3:][kept], 4 * full[..., 3:][kept], rtol=1e-5)
    np.testing.assert_array_equal(apply(layer, train=False), apply(plain, train=False))


@pytest.mark.parametrize('dropout', [0.1, 0.0])
def test_nothing_is_drawn_without_dropout(dropout):
    module = densenet.densenet(5, block_sizes=(1, 2), growth_rate=2, dropout=dropout, **SMALL_STEM)
    assert draws(module, train=True) == bool(dropout)
    assert not draws(module, train=False)


def test_convolutions_start_as_kaiming_normal_with_fan_in():
    layer = densenet.DenseLayer(32, 4, 0.0, jnp.float32)
    params = jax.jit(lambda: layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 64)), train=False))()['params']
    assert float(params['conv1']['kernel'].std()) == pytest.approx(np.sqrt(2 / 64), rel=0.03)
    assert float(params['conv2']['kernel'].std()) == pytest.approx(np.sqrt(2 / (9 * 128)), rel=0.03)


@pytest.mark.parametrize(
    ('options', 'least'),
    [({}, 29), (SMALL_STEM, 8), ({'stem_pool': False}, 15), ({'stem_strides': 4}, 57), ({'block_sizes': (1,)}, 1)],
)
def test_the_smallest_image(options, least):
    module = densenet.densenet(5, **{'block_sizes': (1, 1, 1, 1), 'growth_rate': 2, **options})
    models.abstract(module, (least, 64, 3), num_classes=5)
    if least > 1:
        with pytest.raises(errors.InputError, match=rf'{least - 1} x 64 pixels .* at least {least} rows'):
            models.abstract(module, (least - 1, 64, 3), num_classes=5)


@pytest.mark.parametrize('depth', [121, 161, 169, 201])
def test_the_form_for_small_images_differs_in_the_stem(depth):
    module = models.MODELS.make(f'densenet{depth}', num_classes=10)
    small = models.MODELS.make(f'cifar_densenet{depth}', num_classes=10)
    assert small != module
    assert small == module.clone(**SMALL_STEM)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'block_sizes': ()}, r'block_sizes \(\) need .* at least one'),
        ({'block_sizes': (6, 0)}, r'block_sizes\[1\] must be an integer of at least 1, got 0'),
        ({'growth_rate': 0}, 'growth_rate must be an integer of at least 1, got 0'),
        ({'initial_features': 0}, 'initial_features must be an integer of at least 1, got 0'),
        ({'bottleneck': -1}, 'bottleneck must be an integer of at least 1, got -1'),
        ({'stem_strides': 0}, 'stem_strides must be an integer of at least 1, got 0'),
        ({'stem_kernel': 4}, 'stem_kernel must be odd, got 4'),
        ({'stem_kernel': -1}, 'stem_kernel .* got -1'),
        ({'dropout': 1.0}, r'dropout must be a finite number at least 0 and below 1, got 1.0'),
        ({'dropout': float('nan')}, r'dropout must be a finite number at least 0 and below 1, got nan'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(errors.InputError, match=message):
        models.MODELS.make('densenet', num_classes=10, **options)

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.models import layers


@pytest.mark.parametrize('size', [6, 7])
def test_a_window_with_stride_two_starts_where_pytorch_starts_it(size):
    # With padding 1, out[i] looks at rows 2i - 1, 2i, 2i + 1; 'SAME' would start at 2i on an even image.
    x = np.arange(1.0, size * size + 1, dtype=np.float32).reshape(1, size, size, 1)
    padded = np.pad(x[0, :, :, 0], 1)
    layer = layers.conv(1, 3, strides=2, name=None)
    for a in range(3):
        for b in range(3):
            kernel = np.zeros((3, 3, 1, 1), np.float32)
            kernel[a, b] = 1
            out = layer.apply({'params': {'kernel': kernel}}, x)
            expected = [[padded[2 * i + a, 2 * j + b] for j in range((size + 1) // 2)] for i in range((size + 1) // 2)]
            np.testing.assert_array_equal(out[0, :, :, 0], expected)


@pytest.mark.parametrize('kernel', [1, 3, 5, 7])
def test_stride_one_keeps_the_image_size(kernel):
    x = jnp.zeros((1, 8, 9, 2))
    out = jax.eval_shape(lambda: layers.conv(3, kernel, name=None).init_with_output(jax.random.key(0), x)[0])
    assert out.shape == (1, 8, 9, 3)


def test_convolutions_start_as_kaiming_normal_with_fan_out():
    params = layers.conv(64, 3, use_bias=True, name=None).init(jax.random.key(0), jnp.zeros((1, 4, 4, 32)))['params']
    std = math.sqrt(2 / (3 * 3 * 64))
    assert float(params['kernel'].std()) == pytest.approx(std, rel=0.02)
    assert float(jnp.abs(params['kernel']).max()) > 3 * std  # normal, not cut off
    np.testing.assert_array_equal(params['bias'], 0)


def test_dense_layers_start_as_in_pytorch():
    kernel = layers.dense(200).init(jax.random.key(0), jnp.zeros((1, 300)))['params']['kernel']
    bound = 1 / math.sqrt(300)  # kaiming_uniform_(a=sqrt(5))
    assert 0.99 * bound < float(jnp.abs(kernel).max()) <= bound
    assert float(kernel.std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)


def test_batch_norm_uses_the_batch_in_training_and_the_running_statistics_after_it():
    x = np.random.default_rng(0).normal(3, 2, (16, 5, 5, 3)).astype(np.float32)
    norm = layers.batch_norm(use_running_average=False)
    variables = {
        'params': {'scale': jnp.array([1.0, 2.0, 3.0]), 'bias': jnp.array([0.0, -1.0, 1.0])},
        'batch_stats': {'mean': jnp.array([1.0, 2.0, 3.0]), 'var': jnp.array([0.5, 1.0, 2.0])},
    }
    out, changes = norm.apply(variables, x, mutable=['batch_stats'])
    mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    scale, bias = (np.asarray(variables['params'][name]) for name in ('scale', 'bias'))
    np.testing.assert_allclose(out, (x - mean) / np.sqrt(var + 1e-5) * scale + bias, atol=1e-4)
    # PyTorch's momentum 0.1 is 0.9 here.
    np.testing.assert_allclose(changes['batch_stats']['mean'], 0.9 * np.array([1, 2, 3]) + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(changes['batch_stats']['var'], 0.9 * np.array([0.5, 1, 2]) + 0.1 * var, rtol=1e-4)
    evaluated = layers.batch_norm(use_running_average=True).apply(variables, x)
    expected = (x - np.array([1, 2, 3])) / np.sqrt(np.array([0.5, 1, 2]) + 1e-5) * scale + bias
    np.testing.assert_allclose(evaluated, expected, atol=1e-4)


def test_max_pool_drops_what_fills_no_window():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    expected = [[x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(1, 2)) for j in range(2)] for i in range(2)]
    np.testing.assert_array_equal(layers.max_pool(x), np.transpose(expected, (2, 0, 1, 3)))


def test_mean_over_positions():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(layers.mean_over_positions(x), x.reshape(2, 20, 3).mean(axis=1), atol=1e-6)


def test_layers_are_flax_modules():
    assert isinstance(layers.conv(4, 3, name=None), nn.Conv)
    assert isinstance(layers.dense(4), nn.Dense)

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.models import layers
from rfn_jax.models.families import swin


def random(*shape, mean=0.0):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32) + np.float32(mean)


@pytest.mark.parametrize('size', [6, 7])
def test_a_window_with_stride_two_starts_where_pytorch_starts_it(size):
    # With padding 1, out[i] looks at rows 2i - 1, 2i, 2i + 1; 'SAME' would start at 2i on an even image.
    x = np.arange(1.0, size * size + 1, dtype=np.float32).reshape(1, size, size, 1)
    kernels = np.eye(9, dtype=np.float32).reshape(3, 3, 1, 9)  # one of its 9 places each
    out = layers.conv(9, 3, strides=2, name=None).apply({'params': {'kernel': kernels}}, x)
    padded = np.pad(x[0, :, :, 0], 1)
    for place, (a, b) in enumerate(itertools.product(range(3), repeat=2)):
        np.testing.assert_array_equal(out[0, :, :, place], padded[a::2, b::2][: (size + 1) // 2, : (size + 1) // 2])


@pytest.mark.parametrize('kernel', [1, 3, 5, 7])
def test_stride_one_keeps_the_image_size(kernel):
    layer = layers.conv(3, kernel, name=None)
    out = jax.eval_shape(lambda: layer.init_with_output(jax.random.key(0), jnp.zeros((1, 8, 9, 2)))[0])
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
    p = {'scale': np.array([1.0, 2.0, 3.0]), 'bias': np.array([0.0, -1.0, 1.0])}
    s = {'mean': np.array([1.0, 2.0, 3.0]), 'var': np.array([0.5, 1.0, 2.0])}
    variables = jax.tree.map(np.float32, {'params': p, 'batch_stats': s})
    out, changes = layers.batch_norm(use_running_average=False).apply(variables, x, mutable=['batch_stats'])
    mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    np.testing.assert_allclose(out, (x - mean) / np.sqrt(var + 1e-5) * p['scale'] + p['bias'], atol=1e-4)
    # PyTorch's momentum 0.1 is 0.9 here.
    np.testing.assert_allclose(changes['batch_stats']['mean'], 0.9 * s['mean'] + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(changes['batch_stats']['var'], 0.9 * s['var'] + 0.1 * var, rtol=1e-4)
    evaluated = layers.batch_norm(use_running_average=True).apply(variables, x)
    expected = (x - s['mean']) / np.sqrt(s['var'] + 1e-5) * p['scale'] + p['bias']
    np.testing.assert_allclose(evaluated, expected, atol=1e-4)


def windows(x, size, strides, padding, count, reduce):
    """`reduce` of the part of each window `[B, rows, columns, C]` that lies inside of the image, in NumPy."""

    def part(axis, i):
        start = i * strides - padding
        return slice(max(start, 0), min(start + size, x.shape[axis]))

    rows, columns = map(range, count)
    return np.stack([np.stack([reduce(x[:, part(1, i), part(2, j)]) for j in columns], axis=1) for i in rows], axis=1)


@pytest.mark.parametrize(
    ('shape', 'size', 'strides', 'padding', 'count', 'floor'),
    [
        ((5, 4), 2, None, 0, (3, 2), (2, 2)),
        ((6, 7), 3, 2, 0, (3, 3), (2, 3)),  # rows 4 and 5 of six fill no window of three
        ((5, 6), 3, 2, 1, (3, 4), (3, 3)),  # a last window of the last column and of padding
        ((8, 9), 2, 2, 0, (4, 5), (4, 4)),
        ((4, 5), 2, 3, 0, (2, 2), (1, 2)),
        ((4, 3), 2, 3, 1, (2, 2), (2, 2)),  # windows that would start behind the image: PyTorch drops them
        ((4, 7), 2, 4, 1, (2, 2), (2, 2)),
        ((1, 2), 1, 3, 0, (1, 1), (1, 1)),
    ],
)
def test_max_pool_windows_that_are_not_full(shape, size, strides, padding, count, floor):
    x = random(2, *shape, 3, mean=-10)  # padding with zeros would win
    for ceil_mode, number in ((True, count), (False, floor)):
        found = layers.max_pool(x, size, strides=strides, padding=padding, ceil_mode=ceil_mode)
        expected = windows(x, size, strides or size, padding, number, lambda part: part.max(axis=(1, 2)))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ('size', 'strides', 'padding', 'count'),
    [(2, None, 0, (2, 3)), (3, 1, 1, (5, 6)), (3, 2, 1, (3, 3)), (3, 2, 0, (2, 2))],
)
def test_padding_counts_in_average_pooling(size, strides, padding, count):
    x = random(2, 5, 6, 3, mean=5)
    found = layers.avg_pool(x, size, strides=strides, padding=padding)
    expected = windows(x, size, strides or size, padding, count, lambda part: part.sum(axis=(1, 2)) / size**2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ('size', 'rows', 'columns'),
    [
        (3, [(0, 2), (1, 4), (3, 5)], [(0, 3), (2, 5), (4, 7)]),
        (5, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)], [(0, 2), (1, 3), (2, 5), (4, 6), (5, 7)]),
        (6, [(0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 5)], [(0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)]),
        (1, [(0, 5)], [(0, 7)]),
    ],
)
def test_bins_cover_the_image_and_overlap_where_they_do_not_divide_it(size, rows, columns):
    x = random(2, 5, 7, 3)
    expected = [[x[:, a:b, c:d].mean(axis=(1, 2)) for c, d in columns] for a, b in rows]
    np.testing.assert_allclose(layers.adaptive_avg_pool(x, size), np.transpose(expected, (2, 0, 1, 3)), atol=1e-6)
    if size == 1:
        np.testing.assert_allclose(layers.mean_over_positions(x), expected[0][0], atol=1e-6)


def test_stochastic_depth_drops_whole_examples():
    x = np.random.default_rng(0).uniform(1, 2, (400, 2, 3)).astype(np.float32)

    def applied(rate, train, rngs=None):
        return np.asarray(layers.StochasticDepth(rate).apply({}, x, train=train, rngs=rngs))

    found = applied(0.3, True, {'dropout': jax.random.key(0)})
    kept = found[:, 0, 0] != 0
    assert kept.mean() == pytest.approx(0.7, abs=4 * math.sqrt(0.3 * 0.7 / 400))
    np.testing.assert_allclose(found, np.where(kept[:, None, None], x / 0.7, 0), rtol=1e-6)
    np.testing.assert_array_equal(applied(0.3, False), x)
    np.testing.assert_array_equal(applied(0.0, True), x)


@pytest.mark.parametrize('size', [1, 2, 3, 7])
def test_the_table_of_biases_of_swin_lists_differences_of_rows_then_of_columns(size):
    differences = list(itertools.product(range(1 - size, size), repeat=2))
    places = list(itertools.product(range(size), repeat=2))
    expected = [[differences.index((q[0] - k[0], q[1] - k[1])) for k in places] for q in places]
    np.testing.assert_array_equal(swin.relative_positions(size), expected)


@pytest.mark.parametrize(
    ('shape', 'shifts', 'size'), [((6, 9), (1, 1), 3), ((3, 6), (0, 1), 3), ((8, 4), (2, 0), 4), ((4, 6), (1, 1), 2)]
)
def test_the_mask_of_swin_separates_positions_that_only_the_shift_brought_together(shape, shifts, size):
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), axis=-1)
    rolled = np.roll(places, [-s for s in shifts], (0, 1))
    found = swin.shift_mask(shape, shifts, size)
    corners = list(itertools.product(range(0, shape[0], size), range(0, shape[1], size)))
    assert found.shape == (len(corners), size**2, size**2)
    for window, (row, column) in enumerate(corners):
        inside = rolled[row : row + size, column : column + size].reshape(-1, 2)
        near = np.abs(inside[:, None] - inside[None]).max(axis=-1) < size
        np.testing.assert_array_equal(found[window], np.where(near, 0, -100))
    assert (found < 0).any()

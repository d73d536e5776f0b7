import functools
import itertools

import jax
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from one_copy import apply
from quick_attacks import slow

from rfn_jax.attacks.inputs import blocks
from rfn_jax.core.errors import InputError

GENERATOR = np.random.default_rng(0)


@functools.cache
def drawn(count, height, width, n, max_angle, seed=0):
    """The arrangements of `count` keys, as NumPy arrays with a leading axis."""
    draw = jax.jit(jax.vmap(lambda key: blocks.draw_arrangement(key, height, width, n, max_angle)))
    return jax.tree.map(np.asarray, draw(jax.random.split(jax.random.key(seed), count)))


def turned(block, angle):
    """A block `[h, w]` rotated about its center by SciPy, bilinear and with zeros around it."""
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    center = (np.array(block.shape) - 1) / 2
    return scipy.ndimage.affine_transform(block, matrix, center - matrix @ center, order=1, mode='grid-constant')


def cut(array, lengths, axis):
    return np.split(array, np.cumsum(lengths)[:-1], axis=axis)


def textbook(image, a):
    """The image `[H, W, C]` cut into strips and blocks, rotated, and reassembled."""
    channels = []
    for channel in np.moveaxis(image.astype(np.float64), -1, 0):
        if a.upright:
            channel = channel.T
        strips = []
        for i, strip in enumerate(cut(channel, a.lengths, 0)):
            parts = [
                turned(block, a.angles[i, j]) if block.size else block
                for j, block in enumerate(cut(strip, a.block_lengths[i], 1))
            ]
            strips.append(np.concatenate([parts[j] for j in a.block_orders[i]], axis=1))
        result = np.concatenate([strips[i] for i in a.order], axis=0)
        channels.append(result.T if a.upright else result)
    return np.stack(channels, axis=-1)


@pytest.mark.parametrize(
    ('shape', 'n', 'max_angle'),
    [
        slow((12, 12, 3), 3, 24.0),
        ((11, 7, 1), 2, 24.0),
        slow((9, 14, 2), 3, 180.0),
        slow((4, 4, 1), 4, 90.0),
        slow((8, 5, 2), 1, 60.0),
        slow((5, 5, 2), 5, 0.0),
    ],
)
def test_it_equals_the_textbook_with_the_same_draws_for_each_example(shape, n, max_angle):
    images = GENERATOR.uniform(size=(8, *shape)).astype(np.float32)
    result = apply(blocks.block_shuffle_rotate(1, n, max_angle), images)
    draws = drawn(8, *shape[:2], n, max_angle)
    for i in range(8):
        np.testing.assert_allclose(
            result[i], textbook(images[i], blocks.Arrangement(*(f[i] for f in draws))), atol=1e-5
        )
    assert len(set(draws.upright.tolist())) == 2


@pytest.mark.parametrize('upright', [False, True])
def test_empty_strips_and_blocks_do_no_harm(upright):
    image = GENERATOR.uniform(size=(6, 6, 1)).astype(np.float32)
    a = blocks.Arrangement(
        upright=np.array(upright),
        lengths=np.array([0, 4, 2]),
        order=np.array([2, 0, 1]),
        block_lengths=np.array([[2, 2, 2], [6, 0, 0], [0, 1, 5]]),
        block_orders=np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0]]),
        angles=np.array([[0.1, 0.2, 0.3], [0.4, -0.5, 0.6], [-0.7, 0.8, 0.9]], np.float32),
    )
    np.testing.assert_allclose(jax.jit(blocks.rearrange)(image, a), textbook(image, a), atol=1e-5)


def test_the_draws_are_cuts_permutations_and_angles():
    count, height, width, n = 3000, 20, 31, 3
    draws = drawn(count, height, width, n, 24.0)
    assert scipy.stats.binomtest(int(draws.upright.sum()), count, 0.5).pvalue > 1e-3
    np.testing.assert_array_equal(draws.lengths.sum(-1), np.where(draws.upright, width, height))
    np.testing.assert_array_equal(draws.block_lengths.sum(-1).T, [np.where(draws.upright, height, width)] * n)
    assert min(draws.lengths.min(), draws.block_lengths.min()) >= 0
    # The shares are numbers of U(1, 2) over their sum.
    reference = GENERATOR.uniform(1, 2, size=(20000, n))
    reference = np.round(reference / reference.sum(1, keepdims=True) * width)[:, 0]
    for lengths in draws.lengths[draws.upright].T:
        assert scipy.stats.ks_2samp(lengths, reference).pvalue > 1e-4
    for orders in (draws.order, *np.moveaxis(draws.block_orders, 1, 0)):
        permutations, counts = np.unique(orders, axis=0, return_counts=True)
        np.testing.assert_array_equal(permutations, list(itertools.permutations(range(3))))
        assert scipy.stats.chisquare(counts).pvalue > 1e-3
    degrees = np.rad2deg(draws.angles)
    assert np.abs(degrees).max() <= 24 + 1e-5
    for angles in degrees.reshape(count, -1).T:
        assert scipy.stats.kstest(angles / 24, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-4
    assert np.abs(np.corrcoef(degrees.reshape(count, -1).T) - np.eye(n * n)).max() < 0.1  # each block has its own


def test_more_blocks_than_pixels_are_refused():
    with pytest.raises(InputError, match='images of 9 x 4 pixels cannot be cut into 5 strips'):
        apply(blocks.block_shuffle_rotate(1, 5), np.zeros((1, 9, 4, 1), np.float32))

import functools

import jax
import numpy as np
import pytest
import scipy.stats
from attacks import ascent

from rfn_jax.attacks import Budget, uniform_in_ball
from rfn_jax.core.errors import InputError


def random_images(count, seed=0):
    """Originals as uint8 with whole rows at both ends of the box, and the same as floats."""
    levels = np.random.default_rng(seed).integers(256, size=(count, 5, 4, 3)).astype(np.uint8)
    levels[:, 0], levels[:, 1] = 0, 255
    return levels, levels.astype(np.float32) / np.float32(255)


@pytest.mark.parametrize('norm', ['linf', 'l2'])
@pytest.mark.parametrize('eps', [0.004, 0.3, 1.0])
def test_project_equals_a_slow_projection(norm, eps):
    _, originals = random_images(6)
    scales = np.array([0.0, 1e-4, 0.01, 0.1, 1.0, 10.0]).reshape(-1, 1, 1, 1)
    far = (originals + scales * np.random.default_rng(1).normal(size=originals.shape)).astype(np.float32)
    projected = np.asarray(Budget(eps, norm).project(far, originals))
    assert projected.dtype == np.float32
    for image, original, result in zip(far.astype(np.float64), originals, projected, strict=True):
        expected = ascent.project(image, original, norm=norm, eps=eps)
        np.testing.assert_allclose(result, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize('eps', [0.5 / 255, 1 / 255, 1.5 / 255, 0.03, 8 / 255, 0.1, 1.0])
def test_quantized_linf_images_are_the_nearest_levels_inside_the_budget(eps):
    levels, originals = random_images(5)
    far = originals + np.random.default_rng(2).uniform(-2 * eps, 2 * eps, originals.shape).astype(np.float32)
    images = np.asarray(Budget(eps).project(far, originals))
    quantized = Budget(eps).quantize(images, levels)
    assert quantized.dtype == np.uint8
    all_levels = np.arange(256)
    for image, original, result in zip(images.flat, levels.flat, quantized.flat, strict=True):
        allowed = all_levels[np.abs(all_levels - int(original)) <= eps * 255 * (1 + 1e-9)]
        assert result in allowed
        assert abs(result - 255 * float(image)) <= np.min(np.abs(allowed - 255 * float(image))) + 1e-9


@pytest.mark.parametrize('eps', [0.5 / 255, 0.02, 0.5, 1.0, 3.0])
def test_quantized_l2_images_are_inside_the_budget(eps):
    levels, originals = random_images(8)
    direction = np.random.default_rng(2).normal(size=originals.shape).astype(np.float32)
    direction[4:] *= np.random.default_rng(3).uniform(size=direction[4:].shape) < 0.1  # few pixels, large changes
    images = np.asarray(Budget(eps, 'l2').project(originals + 10 * direction, originals))
    quantized = Budget(eps, 'l2').quantize(images, levels)
    assert quantized.dtype == np.uint8
    change = quantized.astype(np.float64) - levels
    assert np.all(ascent.lengths(change / 255, 'l2') <= eps * (1 + 1e-6))
    # Every value is one of the two levels around it, and the nearest one where nothing had to be shortened.
    wanted = images.astype(np.float64) * 255 - levels
    assert np.all(change * wanted >= 0)
    assert np.all(np.abs(change - wanted) < 1 + 1e-4)
    nearest = np.rint(wanted)
    for result, whole, exact in zip(change, nearest, wanted, strict=True):
        moved = result != whole
        assert np.all(np.abs(whole[moved]) > np.abs(exact[moved]))  # only what rounding had lengthened
        if moved.any():  # as few as it takes: with the last one back the image would be outside
            last = np.min((np.abs(whole) - np.abs(exact))[moved])
            back = result.copy()
            first = np.flatnonzero(moved & np.isclose(np.abs(whole) - np.abs(exact), last))[0]
            back.flat[first] = whole.flat[first]
            assert ascent.lengths(back / 255, 'l2') > eps


def test_quantized_l2_images_keep_their_length():
    generator = np.random.default_rng(0)
    levels = generator.integers(60, 200, size=(4, 32, 32, 3)).astype(np.uint8)
    originals = levels.astype(np.float32) / 255
    direction = generator.normal(size=originals.shape).astype(np.float32)
    for eps, share in ((0.25, 0.97), (0.5, 0.99), (1.0, 0.997)):  # truncation would leave 0.72, 0.84 and 0.92
        images = np.asarray(Budget(eps, 'l2').project(originals + direction, originals))
        change = Budget(eps, 'l2').quantize(images, levels).astype(np.float64) - levels
        lengths = ascent.lengths(change / 255, 'l2')
        assert np.all(lengths <= eps * (1 + 1e-6))
        assert np.all(lengths >= share * eps), (eps, lengths)


def test_a_budget_below_one_level_is_refused_for_storage():
    with pytest.raises(InputError, match=r'eps 0\.003 is below 1/255'):
        Budget(0.003).check_levels()
    Budget(1 / 255).check_levels()
    Budget(0.003, 'l2').check_levels()


@pytest.mark.parametrize(('norm', 'eps'), [('linf', 1.0), ('l2', 300.0)])
def test_quantize_reproduces_every_pair_of_whole_levels(norm, eps):
    base, target = (grid.reshape(1, 256, 256, 1) for grid in np.meshgrid(np.arange(256), np.arange(256)))
    levels = base.astype(np.uint8)
    as_image = target.astype(np.float32) / np.float32(255)
    as_sum = levels.astype(np.float32) / np.float32(255) + ((target - base) / 255).astype(np.float32)
    for images in (as_image, np.clip(as_sum, 0, 1)):
        np.testing.assert_array_equal(Budget(eps, norm).quantize(images, levels), target)


EPS = 0.1
GRAY = np.full((4000, 2, 2, 1), 0.5, np.float32)
KEYS = jax.random.split(jax.random.key(0), 4000)


def test_linf_start_is_uniform_in_every_value():
    change = np.asarray(uniform_in_ball(GRAY, KEYS, Budget(EPS))) - GRAY
    assert np.max(np.abs(change)) <= EPS + 1e-7
    for value in change.reshape(4000, -1).T:
        assert scipy.stats.kstest(value / EPS, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_l2_start_is_uniform_in_the_ball():
    change = (np.asarray(uniform_in_ball(GRAY, KEYS, Budget(EPS, 'l2'))) - GRAY).reshape(4000, -1)
    radius = np.linalg.norm(change, axis=1)
    assert radius.max() <= EPS + 1e-7
    # In a ball of d dimensions the share of points within r is (r / eps)^d, and all directions are alike.
    assert scipy.stats.kstest((radius / EPS) ** change.shape[1], scipy.stats.uniform.cdf).pvalue > 1e-3
    directions = change / radius[:, None]
    np.testing.assert_allclose(directions.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(directions.T @ directions / 4000, np.eye(4) / 4, atol=0.02)


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_starts_stay_in_the_box_and_follow_the_key_of_the_example_alone(norm):
    images = np.random.default_rng(0).integers(2, size=(6, 4, 4, 3)).astype(np.float32)  # every value is at an end
    keys = jax.random.split(jax.random.key(1), 6)
    start = jax.jit(functools.partial(uniform_in_ball, limits=Budget(EPS, norm)))
    whole = np.asarray(start(images, keys))
    assert (whole.min(), whole.max()) == (0, 1)
    np.testing.assert_allclose(start(images[5:], keys[5:]), whole[5:], atol=1e-7)
    assert np.all(np.any(start(images, keys[::-1]) != whole, axis=(1, 2, 3)))

import math

import numpy as np
import pytest

from rfn_jax.attacks import Budget
from rfn_jax.core.errors import InputError

GENERATOR_SEED = 0


def random_images(count, seed=GENERATOR_SEED):
    """Originals as uint8 with whole rows at both ends of the box, and the same as floats."""
    levels = np.random.default_rng(seed).integers(256, size=(count, 5, 4, 3)).astype(np.uint8)
    levels[:, 0], levels[:, 1] = 0, 255
    return levels, levels.astype(np.float32) / np.float32(255)


def slow_project(image, original, eps, norm):
    """One image, in float64, value by value."""
    change = image.astype(np.float64) - original
    length = math.sqrt(sum(float(value) ** 2 for value in change.flat))
    projected = np.empty_like(change)
    for index, value in np.ndenumerate(change):
        if norm == 'linf':
            value = min(max(value, -eps), eps)
        elif length > eps:
            value = value * eps / length
        projected[index] = min(max(original[index] + value, 0.0), 1.0)
    return projected


@pytest.mark.parametrize('norm', ['linf', 'l2'])
@pytest.mark.parametrize('eps', [0.004, 0.3, 1.0])
def test_project_equals_a_slow_projection(norm, eps):
    _, originals = random_images(6)
    scales = np.array([0.0, 1e-4, 0.01, 0.1, 1.0, 10.0]).reshape(-1, 1, 1, 1)
    far = (originals + scales * np.random.default_rng(1).normal(size=originals.shape)).astype(np.float32)
    projected = np.asarray(Budget(eps, norm).project(far, originals))
    assert projected.dtype == np.float32
    for image, original, result in zip(far, originals, projected, strict=True):
        np.testing.assert_allclose(result, slow_project(image, original, eps, norm), atol=1e-6, rtol=0)


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_project_leaves_images_inside_the_budget_alone(norm):
    _, originals = random_images(4)
    inside = np.clip(originals + 0.001 * np.random.default_rng(1).uniform(-1, 1, originals.shape), 0, 1)
    inside = inside.astype(np.float32)
    np.testing.assert_allclose(Budget(0.1, norm).project(inside, originals), inside, atol=1e-7, rtol=0)


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


def test_quantized_images_do_not_change_below_one_level():
    levels, originals = random_images(3)
    change = np.random.default_rng(2).uniform(-0.9 / 255, 0.9 / 255, originals.shape).astype(np.float32)
    for norm, eps in (('linf', 0.9 / 255), ('l2', 0.9 / 255)):
        images = np.asarray(Budget(eps, norm).project(originals + change, originals))
        np.testing.assert_array_equal(Budget(eps, norm).quantize(images, levels), levels)


@pytest.mark.parametrize('eps', [0.5 / 255, 0.02, 0.5, 1.0, 3.0])
def test_quantized_l2_images_are_inside_the_budget(eps):
    levels, originals = random_images(8)
    direction = np.random.default_rng(2).normal(size=originals.shape).astype(np.float32)
    direction[4:] *= np.random.default_rng(3).uniform(size=direction[4:].shape) < 0.1  # few pixels, large changes
    images = np.asarray(Budget(eps, 'l2').project(originals + 10 * direction, originals))
    quantized = Budget(eps, 'l2').quantize(images, levels)
    assert quantized.dtype == np.uint8
    change = quantized.astype(np.float64) - levels
    lengths = np.sqrt(np.sum((change / 255) ** 2, axis=(1, 2, 3)))
    assert np.all(lengths <= eps * (1 + 1e-6))
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
            assert np.sqrt(np.sum((back / 255) ** 2)) > eps


def test_quantized_l2_images_keep_their_length():
    generator = np.random.default_rng(0)
    levels = generator.integers(60, 200, size=(4, 32, 32, 3)).astype(np.uint8)
    originals = levels.astype(np.float32) / 255
    direction = generator.normal(size=originals.shape).astype(np.float32)
    for eps, share in ((0.25, 0.97), (0.5, 0.99), (1.0, 0.997)):  # truncation would leave 0.72, 0.84 and 0.92
        images = np.asarray(Budget(eps, 'l2').project(originals + direction, originals))
        change = Budget(eps, 'l2').quantize(images, levels).astype(np.float64) - levels
        lengths = np.sqrt(np.sum((change / 255) ** 2, axis=(1, 2, 3)))
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

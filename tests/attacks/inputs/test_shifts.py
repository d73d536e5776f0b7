import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.stats
from one_copy import apply, compiled

from rfn_jax.attacks.inputs import shifts
from rfn_jax.core.errors import InputError

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.uniform(0.1, 1, size=(2, 6, 7, 2)).astype(np.float32)


def shifted(image, a, b):
    """The image with content `a` down and `b` to the right, pixel by pixel."""
    result = np.zeros_like(image)
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            if 0 <= i - a < image.shape[0] and 0 <= j - b < image.shape[1]:
                result[i, j] = image[i - a, j - b]
    return result


def test_shift_moves_the_image_and_zeros_move_in():
    for a in range(-3, 4):
        for b in (-3, -1, 0, 2):
            result = shifts.shift(jnp.asarray(IMAGES[0]), jnp.array([a, b]), 3)
            np.testing.assert_array_equal(result, shifted(IMAGES[0], a, b))


def test_every_shift_is_drawn_equally_often():
    count, most = 4000, 2
    images = np.broadcast_to(IMAGES[:1], (count, *IMAGES.shape[1:]))
    results = apply(shifts.random_shift(most), images, jax.random.split(jax.random.key(0), count))
    seen = np.array(
        [
            np.sum(np.all(results == shifted(IMAGES[0], a, b), axis=(1, 2, 3)))
            for a in range(-most, most + 1)
            for b in range(-most, most + 1)
        ]
    )
    assert seen.sum() == count
    assert scipy.stats.chisquare(seen).pvalue > 1e-3


def test_a_shift_is_by_two_pixels_at_most_and_of_one_copy_by_default():
    assert shifts.random_shift().copies == 1
    assert shifts.random_shift(copies=5).copies == 5
    keys = jax.random.split(jax.random.key(0), 300)
    results = apply(shifts.random_shift(), np.ones((300, 6, 6, 1), np.float32), keys)
    assert 6 - results.max(axis=2).sum(axis=1).min() == 2


def test_a_shift_out_of_the_image_is_refused():
    with pytest.raises(InputError, match='max_shift 6 must be below the size of the images, 6 x 7 pixels'):
        jax.eval_shape(lambda: compiled(shifts.random_shift(6), IMAGES, jax.random.split(jax.random.key(0), 2)))

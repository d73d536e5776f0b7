import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.stats

from rfn_jax.attacks.gradients import translation
from rfn_jax.core.errors import InputError

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.uniform(0.1, 1, size=(2, 6, 7, 2)).astype(np.float32)


def kernel(size=15, nsig=3.0, kind='gaussian'):
    profile = translation.kernel_profile(size, nsig=nsig, kind=kind)
    return np.outer(profile, profile)


@pytest.mark.parametrize(('size', 'nsig'), [(15, 3.0), (5, 3.0), (7, 1.5), (1, 3.0)])
def test_the_gaussian_kernel_is_the_published_one(size, nsig):
    density = scipy.stats.norm.pdf(np.linspace(-nsig, nsig, size) if size > 1 else np.zeros(1))
    expected = np.outer(density, density) / np.outer(density, density).sum()
    np.testing.assert_allclose(kernel(size, nsig), expected, rtol=1e-12)


@pytest.mark.parametrize('size', [1, 3, 15])
def test_the_linear_and_uniform_kernels_are_those_of_the_paper(size):
    k = size // 2
    offsets = range(-k, k + 1)
    linear = np.array([[(1 - abs(i) / (k + 1)) * (1 - abs(j) / (k + 1)) for j in offsets] for i in offsets])
    np.testing.assert_allclose(kernel(size, kind='linear'), linear / linear.sum(), rtol=1e-12)
    np.testing.assert_allclose(kernel(size, kind='uniform'), np.full((size, size), 1 / size**2), rtol=1e-12)


@pytest.mark.parametrize('kind', translation.KINDS)
def test_a_kernel_is_symmetric_of_sum_one_and_highest_in_the_middle(kind):
    values = kernel(15, kind=kind)
    assert values.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(values, values[::-1, ::-1], rtol=1e-12)
    np.testing.assert_allclose(values, values.T, rtol=1e-12)
    assert values.max() == pytest.approx(values[7, 7], rel=1e-12)
    assert values.min() > 0


def convolve(gradient, **options):
    transformation = translation.translation_kernel(**options)
    return transformation.update(gradient, transformation.init(gradient))[0]


@pytest.mark.parametrize('kind', translation.KINDS)
@pytest.mark.parametrize('shape', [(3, 9, 11, 3), (1, 7, 7, 1)])
def test_the_gradient_is_convolved_channel_by_channel_with_zeros_around(shape, kind):
    gradient = GENERATOR.normal(size=shape).astype(np.float32)
    result = convolve(gradient, size=7, kind=kind)
    for b in range(shape[0]):
        for c in range(shape[3]):
            channel = gradient[b, :, :, c].astype(np.float64)
            ndimage = scipy.ndimage.correlate(channel, kernel(7, kind=kind), mode='constant')
            signal = scipy.signal.convolve2d(channel, kernel(7, kind=kind), mode='same')
            np.testing.assert_allclose(ndimage, signal, atol=1e-12)
            np.testing.assert_allclose(result[b, :, :, c], ndimage, atol=1e-6)


def test_the_default_kernel_has_fifteen_pixels():
    impulse = np.zeros((1, 31, 31, 1), np.float32)
    impulse[0, 15, 15] = 1
    result = np.asarray(convolve(impulse))[0, :, :, 0]
    np.testing.assert_allclose(result[8:23, 8:23], kernel(), rtol=1e-5)
    assert np.sum(result != 0) == 15 * 15


def test_a_kernel_of_one_pixel_changes_nothing():
    np.testing.assert_array_equal(convolve(IMAGES, size=1), IMAGES)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float16, jnp.bfloat16])
def test_the_type_of_the_gradient_is_kept_and_jit_changes_nothing(dtype):
    gradient = jnp.asarray(IMAGES, dtype)
    result = convolve(gradient, size=5)
    assert result.dtype == dtype
    jitted = jax.jit(lambda g: convolve(g, size=5))(gradient)
    exact = np.asarray(convolve(gradient.astype(jnp.float32), size=5))
    step = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(result, np.float32), exact, atol=step)
    np.testing.assert_allclose(np.asarray(jitted, np.float32), exact, atol=step)


def test_the_gradient_of_an_example_does_not_depend_on_the_batch():
    gradient = GENERATOR.normal(size=(7, 6, 8, 3)).astype(np.float32)
    whole = np.asarray(convolve(gradient, size=5))
    order = GENERATOR.permutation(7)
    np.testing.assert_allclose(convolve(gradient[order], size=5), whole[order], atol=1e-6)
    np.testing.assert_allclose(convolve(gradient[3:4], size=5), whole[3:4], atol=1e-6)


def test_a_kernel_larger_than_the_image_is_refused():
    with pytest.raises(InputError, match='kernel of 15 pixels is larger than the images of 6 x 7 pixels'):
        jax.eval_shape(convolve, jax.ShapeDtypeStruct(IMAGES.shape, jnp.float32))
    assert jax.eval_shape(lambda g: convolve(g, size=5), IMAGES).shape == IMAGES.shape

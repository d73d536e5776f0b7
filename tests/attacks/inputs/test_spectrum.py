import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
from one_copy import compiled as apply

from rfn_jax.attacks.inputs import spectrum

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.uniform(size=(3, 6, 7, 2)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), 3)


@pytest.mark.parametrize('shape', [(2, 6, 7, 3), (1, 1, 5, 1), (2, 32, 32, 1)])
def test_the_cosine_transform_is_that_of_scipy(shape):
    images = GENERATOR.normal(size=shape).astype(np.float32)
    expected = scipy.fft.dctn(images.astype(np.float64), axes=(1, 2), norm='ortho')
    frequencies = spectrum.cosine_transform(jnp.asarray(images))
    np.testing.assert_allclose(frequencies, expected, atol=2e-5)
    np.testing.assert_allclose(spectrum.cosine_transform(frequencies, inverse=True), images, atol=1e-5)
    inverse = scipy.fft.idctn(images.astype(np.float64), axes=(1, 2), norm='ortho')
    np.testing.assert_allclose(spectrum.cosine_transform(jnp.asarray(images), inverse=True), inverse, atol=2e-5)


@pytest.mark.parametrize('norm', ['ortho', None])  # the authors' transforms are not orthonormal: it makes no difference
def test_the_transform_equals_the_textbook_with_the_same_draws(norm):
    sigma, rho = 0.1, 0.4
    result = apply(spectrum.spectrum_simulation(2, rho, sigma), IMAGES, KEYS)
    for image, key, transformed in zip(IMAGES, KEYS, result, strict=True):
        noise_key, factor_key = jax.random.split(key)
        noise = sigma * np.asarray(jax.random.normal(noise_key, image.shape), np.float64)
        factors = np.asarray(jax.random.uniform(factor_key, image.shape, minval=1 - rho, maxval=1 + rho), np.float64)
        for c in range(image.shape[-1]):
            frequencies = scipy.fft.dctn((image + noise)[..., c], norm=norm) * factors[..., c]
            np.testing.assert_allclose(transformed[..., c], scipy.fft.idctn(frequencies, norm=norm), atol=2e-6)


def test_the_gradient_is_that_at_the_transformed_image_or_goes_through_the_transform():
    cotangent = GENERATOR.normal(size=IMAGES.shape).astype(np.float32)
    at_image, at_transformed = (spectrum.spectrum_simulation(1, gradient=name) for name in ('images', 'transformed'))
    value, pull = jax.vjp(lambda x: apply(at_transformed, x, KEYS), IMAGES)
    np.testing.assert_array_equal(pull(cotangent)[0], cotangent)
    other, pull = jax.vjp(lambda x: apply(at_image, x, KEYS), IMAGES)
    np.testing.assert_array_equal(value, other)  # the image is the same to the last bit
    for i, key in enumerate(KEYS):
        factors = np.asarray(jax.random.uniform(jax.random.split(key)[1], IMAGES.shape[1:], minval=0.5, maxval=1.5))
        expected = scipy.fft.dctn(cotangent[i].astype(np.float64), axes=(0, 1), norm='ortho') * factors
        expected = scipy.fft.idctn(expected, axes=(0, 1), norm='ortho')
        np.testing.assert_allclose(pull(cotangent)[0][i], expected, atol=5e-6)

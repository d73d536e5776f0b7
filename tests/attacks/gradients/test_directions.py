import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.attacks import accumulate, steepest


def gradients(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def apply(transformation, gradient):
    return np.asarray(transformation.update(gradient, transformation.init(jnp.zeros_like(gradient)))[0])


def test_steepest_linf_is_the_sign_and_zero_stays_zero():
    gradient = np.array([-2.0, -1e-30, 0.0, 1e-30, 3e20], np.float32).reshape(1, 5, 1, 1)
    np.testing.assert_array_equal(apply(steepest('linf'), gradient).ravel(), [-1, -1, 0, 1, 1])


@pytest.mark.parametrize('scale', [1e-30, 1e-3, 1.0, 1e30])
def test_steepest_l2_has_unit_norm_for_each_image_whatever_its_scale(scale):
    gradient = gradients(3, 4, 5, 2)
    expected = [image / np.sqrt(np.sum(image.astype(np.float64) ** 2)) for image in gradient]
    np.testing.assert_allclose(apply(steepest('l2'), gradient * np.float32(scale)), expected, atol=1e-6)


@pytest.mark.parametrize('decay', [0.0, 0.7, 1.0, 1.5])
def test_accumulate_equals_the_recursion_image_by_image(decay):
    transformation = accumulate(decay)
    steps = gradients(4, 3, 5, 4, 2) * np.array([1.0, 1e-6, 1e6]).reshape(1, 3, 1, 1, 1).astype(np.float32)
    state = transformation.init(jnp.zeros_like(steps[0]))
    momentum = np.zeros(steps.shape[1:])
    for gradient in steps:
        for i, image in enumerate(gradient.astype(np.float64)):
            momentum[i] = decay * momentum[i] + image / (np.sum(np.abs(image)) / image.size)
        direction, state = transformation.update(gradient, state)
        np.testing.assert_allclose(direction, momentum, rtol=1e-5, atol=1e-6)


def test_accumulate_normalizes_each_image_by_itself():
    gradient = gradients(3, 4, 4, 1)
    scaled = gradient * np.array([1.0, 1e8, 1e-8], np.float32).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(apply(accumulate(), scaled), apply(accumulate(), gradient), rtol=1e-5)


@pytest.mark.parametrize('transformation', [steepest('linf'), steepest('l2'), accumulate()])
def test_a_zero_gradient_gives_a_zero_direction(transformation):
    gradient = gradients(2, 3, 3, 1)
    gradient[0] = 0
    direction = apply(transformation, gradient)
    np.testing.assert_array_equal(direction[0], 0)
    assert np.all(direction[1] != 0)


def test_accumulate_is_the_same_under_jit():
    transformation = accumulate(0.9)
    gradient = gradients(2, 3, 3, 1)
    jitted = jax.jit(lambda g: transformation.update(g, transformation.init(g))[0])
    np.testing.assert_allclose(jitted(gradient), apply(transformation, gradient), rtol=1e-6)

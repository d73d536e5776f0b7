"""Directions of steps: steepest ascent, momentum, patches, and kernels that smooth the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.signal
import scipy.stats
from attacks import ascent
from quick_attacks import slow

from rfn_jax.attacks import Budget, GradientAttack, accumulate, steepest
from rfn_jax.attacks.gradients import translation
from rfn_jax.attacks.gradients.patchwise import patchwise
from rfn_jax.core.errors import InputError

ALPHA = 1 / 128  # powers of two, so that the textbook has no rounding


def gradients(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def apply(transformation, gradient):
    return transformation.update(gradient, transformation.init(jnp.zeros_like(gradient)))[0]


def test_steepest_linf_is_the_sign_and_zero_stays_zero():
    gradient = np.array([-2.0, -1e-30, 0.0, 1e-30, 3e20], np.float32).reshape(1, 5, 1, 1)
    np.testing.assert_array_equal(apply(steepest('linf'), gradient).ravel(), [-1, -1, 0, 1, 1])


@pytest.mark.parametrize('scale', [1e-30, 1e-3, 1.0, 1e30])
def test_steepest_l2_has_unit_norm_for_each_image_whatever_its_scale(scale):
    gradient = gradients(3, 4, 5, 2)
    found = apply(steepest('l2'), gradient * np.float32(scale))
    np.testing.assert_allclose(found, ascent.unit(gradient), atol=1e-6)


@pytest.mark.parametrize('decay', [0.0, 0.7, 1.0, 1.5])
def test_accumulate_equals_the_recursion_image_by_image(decay):
    transformation = accumulate(decay)
    steps = gradients(4, 3, 5, 4, 2) * np.array([1.0, 1e-6, 1e6]).reshape(1, 3, 1, 1, 1).astype(np.float32)
    state = transformation.init(jnp.zeros_like(steps[0]))
    momentum = np.zeros(steps.shape[1:])
    for gradient in steps:
        mean = np.mean(np.abs(np.float64(gradient)), axis=(1, 2, 3), keepdims=True)
        momentum = decay * momentum + gradient / mean
        direction, state = transformation.update(gradient, state)
        np.testing.assert_allclose(direction, momentum, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('transformation', [steepest('linf'), steepest('l2'), accumulate(), patchwise(0.01, 0.1)])
def test_a_zero_gradient_gives_a_zero_direction(transformation):
    gradient = gradients(2, 3, 3, 1)
    gradient[0] = 0
    direction = apply(transformation, gradient)
    np.testing.assert_array_equal(direction[0], 0)
    assert np.all(direction[1] != 0)


def textbook_step(a, g, *, beta, eps, kernel_size):
    """One step of Algorithm 1 of Gao et al. 2020 for an image `[H, W, C]`: the change, and the new amplification."""
    gamma, reach = ALPHA * beta, kernel_size // 2
    a = a + ALPHA * beta * np.sign(g)
    c = np.clip(np.abs(a) - eps, 0, np.inf) * np.sign(a)
    spread = np.zeros_like(c)
    H, W, C = c.shape
    for i in range(H):
        for j in range(W):
            for channel in range(C):
                patch = c[max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1, channel]
                spread[i, j, channel] = np.sum(patch) - c[i, j, channel]
    p = gamma * np.sign(spread)
    return ALPHA * beta * np.sign(g) + p, a + p


@pytest.mark.parametrize(
    ('beta', 'eps', 'kernel_size'), [(8, 1 / 16, 3), (8, 5 / 64, 3), (2, 1 / 16, 5), (1, 1 / 64, 7), (16, 1 / 64, 3)]
)
def test_patches_equal_the_paper_image_by_image(beta, eps, kernel_size):
    gradients = np.random.default_rng(0).normal(size=(6, 3, 7, 5, 2)).astype(np.float32)
    gradients[:, :, 0] = np.abs(gradients[:, :, 0])  # here the steps add up
    gradients[2:, 0, 3] = 0
    transformation = patchwise(ALPHA, eps, beta, kernel_size)
    state = transformation.init(jnp.zeros_like(gradients[0]))
    amplification = [np.zeros(gradients.shape[2:])] * 3
    projected = 0
    for gradient in gradients:
        direction, state = transformation.update(gradient, state)
        for i in range(3):
            change, amplification[i] = textbook_step(
                amplification[i], gradient[i], beta=beta, eps=eps, kernel_size=kernel_size
            )
            np.testing.assert_array_equal(direction[i] * ALPHA, change)
            projected += np.sum(change != ALPHA * beta * np.sign(gradient[i]))
    assert 100 < projected < gradients.size  # the projection happens, but not always


@pytest.mark.parametrize('decay', [slow(None), 0.9])
def test_patches_are_a_direction_for_the_engine(decay, problem, loss_and_gradient):
    eps, beta, steps = 1 / 16, 8, 4
    before = [] if decay is None else [accumulate(decay)]
    direction = optax.chain(*before, patchwise(ALPHA, eps, beta))
    attack = GradientAttack(name='test', limits=Budget(eps), direction=direction, step_size=ALPHA, steps=steps)
    found = attack(*problem.arguments)
    for original, y, adversarial in zip(problem.images.astype(np.float64), problem.labels, found, strict=True):
        x, a, m = original, np.zeros_like(original), np.zeros_like(original)
        for _ in range(steps):
            g = loss_and_gradient(x, y)[1]
            m = g if decay is None else decay * m + g / np.mean(np.abs(g))
            change, a = textbook_step(a, m, beta=beta, eps=eps, kernel_size=3)
            x = ascent.project(x + change, original, norm='linf', eps=eps)
        np.testing.assert_allclose(adversarial, x, atol=1e-6, rtol=0)


@pytest.mark.parametrize('steps', [10, 7, 50])
@pytest.mark.parametrize('eps', [4 / 255, 8 / 255, 16 / 255, 0.3])
def test_an_amplification_of_exactly_eps_leaves_nothing_to_project(eps, steps):
    # With amplification = steps, the first step is eps long up to rounding, which must not be mistaken for an excess.
    gradient = np.random.default_rng(1).normal(size=(1, 8, 8, 3)).astype(np.float32)
    direction = apply(patchwise(eps / steps, eps, amplification=steps), gradient)
    np.testing.assert_array_equal(direction, steps * np.sign(gradient))


def test_excess_that_cancels_is_not_projected():
    # The pixel left of the middle exceeds eps by as much as the one right of it, with the opposite sign.
    gradient = np.zeros((1, 3, 3, 1), np.float32)
    gradient[0, 1, 0], gradient[0, 1, 2] = 1, -1
    expected = gradient.copy()
    expected[0, ::2, 0], expected[0, ::2, 2] = 1, -1
    np.testing.assert_array_equal(apply(patchwise(0.01, 0.007, amplification=1.0), gradient), expected)


def test_patches_treat_each_image_separately():
    gradient = gradients(3, 4, 4, 1, seed=2)
    transformation = patchwise(0.01, 0.02, amplification=5.0)
    alone = [apply(transformation, g[None])[0] for g in gradient]
    scaled = gradient * np.float32([1e-20, 1, 1e20]).reshape(3, 1, 1, 1)
    np.testing.assert_array_equal(apply(transformation, scaled), alone)


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


def convolve(gradient, **options):
    return apply(translation.translation_kernel(**options), gradient)


@pytest.mark.parametrize('kind', translation.KINDS)
@pytest.mark.parametrize('shape', [(3, 9, 11, 3), (1, 7, 7, 1)])
def test_the_gradient_is_convolved_channel_by_channel_with_zeros_around(shape, kind):
    gradient = gradients(*shape)
    result = convolve(gradient, size=7, kind=kind)
    for b in range(shape[0]):
        for c in range(shape[3]):
            expected = scipy.signal.convolve2d(gradient[b, :, :, c], kernel(7, kind=kind), mode='same')
            np.testing.assert_allclose(result[b, :, :, c], expected, atol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float16, jnp.bfloat16])
def test_the_type_of_the_gradient_is_kept_and_jit_changes_nothing(dtype):
    gradient = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, size=(2, 6, 7, 2)), dtype)
    result = convolve(gradient, size=5)
    assert result.dtype == dtype
    jitted = jax.jit(lambda g: convolve(g, size=5))(gradient)
    exact = np.asarray(convolve(gradient.astype(jnp.float32), size=5))
    step = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(result, np.float32), exact, atol=step)
    np.testing.assert_allclose(np.asarray(jitted, np.float32), exact, atol=step)


def test_a_kernel_larger_than_the_image_is_refused():
    with pytest.raises(InputError, match='kernel of 15 pixels is larger than the images of 6 x 7 pixels'):
        convolve(gradients(2, 6, 7, 2))

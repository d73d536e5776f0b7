import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfn_jax.attacks import Budget, GradientAttack, accumulate
from rfn_jax.attacks.gradients.patchwise import patchwise
from rfn_jax.core import losses

ALPHA = 1 / 128  # powers of two, so that the textbook has no rounding


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
def test_it_equals_the_paper_image_by_image(beta, eps, kernel_size):
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


@pytest.mark.parametrize('before', [(), (accumulate(0.9),)])
def test_it_is_a_direction_for_the_engine(before, problem):
    eps, beta = 1 / 16, 8
    gradient_at = jax.jit(jax.grad(lambda x, y: losses.cross_entropy(problem.surrogate(x[None]), y[None])[0]))
    attack = GradientAttack(
        name='test',
        limits=Budget(eps),
        direction=optax.chain(*before, patchwise(ALPHA, eps, beta)),
        step_size=ALPHA,
        steps=4,
    )
    images, labels = problem.images[:4], problem.labels[:4]
    found = attack(problem.surrogate, images, labels, jax.random.key(0))
    for original, y, adversarial in zip(images.astype(np.float64), labels, found, strict=True):
        x, a, m = original, np.zeros_like(original), np.zeros_like(original)
        for _ in range(4):
            g = np.asarray(gradient_at(x.astype(np.float32), y), np.float64)
            m = 0.9 * m + g / np.mean(np.abs(g))
            change, a = textbook_step(a, m if before else g, beta=beta, eps=eps, kernel_size=3)
            x = np.clip(np.clip(x + change, original - eps, original + eps), 0, 1)
        np.testing.assert_allclose(adversarial, x, atol=1e-6, rtol=0)


@pytest.mark.parametrize('steps', [10, 7, 50])
@pytest.mark.parametrize('eps', [4 / 255, 8 / 255, 16 / 255, 0.3])
def test_an_amplification_of_exactly_eps_leaves_nothing_to_project(eps, steps):
    # With amplification = steps, the first step is eps long up to rounding, which must not be mistaken for an excess.
    gradient = np.random.default_rng(1).normal(size=(1, 8, 8, 3)).astype(np.float32)
    transformation = patchwise(eps / steps, eps, amplification=steps)
    direction, _ = transformation.update(gradient, transformation.init(jnp.zeros_like(gradient)))
    np.testing.assert_array_equal(direction, steps * np.sign(gradient))


def test_excess_that_cancels_is_not_projected():
    # The pixel left of the middle exceeds eps by as much as the one right of it, with the opposite sign.
    gradient = np.zeros((1, 3, 3, 1), np.float32)
    gradient[0, 1, 0], gradient[0, 1, 2] = 1, -1
    transformation = patchwise(0.01, 0.007, amplification=1.0)
    direction, _ = transformation.update(gradient, transformation.init(jnp.zeros_like(gradient)))
    expected = gradient.copy()
    expected[0, ::2, 0], expected[0, ::2, 2] = 1, -1
    np.testing.assert_array_equal(direction, expected)


def test_a_zero_gradient_gives_a_zero_direction():
    transformation = patchwise(0.01, 0.1)
    gradient = jnp.zeros((2, 4, 4, 3))
    direction, state = jax.jit(transformation.update)(gradient, transformation.init(gradient))
    np.testing.assert_array_equal(direction, 0)
    np.testing.assert_array_equal(state.amplification, 0)


def test_each_image_is_treated_separately():
    gradient = np.random.default_rng(2).normal(size=(3, 4, 4, 1)).astype(np.float32)
    transformation = patchwise(0.01, 0.02, amplification=5.0)
    alone = [transformation.update(g[None], transformation.init(jnp.zeros((1, 4, 4, 1))))[0][0] for g in gradient]
    scaled = gradient * np.float32([1e-20, 1, 1e20]).reshape(3, 1, 1, 1)
    together, _ = transformation.update(scaled, transformation.init(jnp.zeros_like(gradient)))
    np.testing.assert_array_equal(together, alone)

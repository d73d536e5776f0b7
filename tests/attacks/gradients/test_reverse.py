import jax
import momentum_attack
import numpy as np
import pytest
from momentum_attack import textbook_step

from rfn_jax.attacks import steepest
from rfn_jax.attacks.gradients.reverse import reverse_perturbation
from rfn_jax.core import losses

RADIUS, INNER_STEP = 0.2, 0.06


@pytest.fixture(scope='module')
def loss_and_gradient(problem):
    function = jax.jit(jax.value_and_grad(lambda x, y: losses.cross_entropy(problem.surrogate(x[None]), y[None])[0]))

    def at(x, y):
        loss, gradient = function(x.astype(np.float32), y)
        return float(loss), np.asarray(gradient, np.float64)

    return at


@pytest.mark.parametrize(('late_start', 'random_start'), [(0, True), (0, False), (2, True), (9, True)])
def test_it_equals_rap_image_by_image(late_start, random_start, arguments, loss_and_gradient):
    # Qin et al. 2022, with the start and the clipping of the authors' code; the draws are those of the library.
    expected = []
    for original, y, key in zip(arguments[1].astype(np.float64), *arguments[2:], strict=True):
        x = original
        for t in range(4):
            n = np.zeros_like(x)
            if t >= late_start:
                own = jax.random.fold_in(jax.random.fold_in(key, t + 1), 1)
                if random_start:
                    n = np.asarray(jax.random.uniform(own, x.shape, np.float32, -RADIUS, RADIUS), np.float64)
                    n = np.clip(x + n, 0, 1) - x
                before, _ = loss_and_gradient(x + n, y)
                for _ in range(4):
                    _, g = loss_and_gradient(x + n, y)
                    n = np.clip(n - INNER_STEP * np.sign(g), -RADIUS, RADIUS)
                    n = np.clip(x + n, 0, 1) - x
                assert loss_and_gradient(x + n, y)[0] < before
            _, g = loss_and_gradient(x + n, y)
            x = textbook_step(x, g, original)
        expected.append(x)
    estimate = reverse_perturbation(RADIUS, INNER_STEP, 4, late_start, random_start)
    found = momentum_attack.make(estimate, steps=4, direction=steepest('l2'))(*arguments)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)

import jax
import jax.numpy as jnp
import momentum_attack
import numpy as np
import pytest
from momentum_attack import ALPHA, MU, textbook_step

from rfn_jax.attacks import AT_IMAGE
from rfn_jax.attacks.gradients.look_ahead import look_ahead
from rfn_jax.attacks.gradients.variance import variance_tuned

RADIUS = 0.3


def make(estimate, *, steps=3, **parts):
    return momentum_attack.make(estimate, steps=steps, **parts)


def textbook(arguments, gradient_at, *, count, ahead, neighbors_ahead):
    """Algorithm 1 of Wang and He 2021; the draws are those of the library, by its keys."""
    result = []
    for original, y, key in zip(arguments[1].astype(np.float64), *arguments[2:], strict=True):
        x, m, v = original, np.zeros_like(original), np.zeros_like(original)
        for t in range(3):
            step_key = jax.random.fold_in(key, t + 1)
            g = gradient_at(x + ahead * ALPHA * MU * m, y)
            total = np.zeros_like(x)
            for i in range(count):
                own = jax.random.fold_in(jax.random.fold_in(step_key, i + 1), 0)
                r = np.asarray(jax.random.uniform(own, x.shape, jnp.float32, -RADIUS, RADIUS), np.float64)
                total += gradient_at(x + r + neighbors_ahead * ALPHA * MU * m, y)
            m = MU * m + (g + v) / np.mean(np.abs(g + v))
            v = total / count - g
            x = textbook_step(x, m, original)
        result.append(x)
    return result


@pytest.mark.parametrize(('count', 'chunk_size'), [(1, 1), (5, 2)])
def test_at_the_image_it_equals_vmi_fgsm_image_by_image(count, chunk_size, arguments, gradient_at):
    expected = textbook(arguments, gradient_at, count=count, ahead=0, neighbors_ahead=0)
    found = make(variance_tuned(RADIUS, count), chunk_size=chunk_size)(*arguments)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    without = make(AT_IMAGE)(*arguments)
    assert np.max(np.abs(found - without)) > 1e-3


@pytest.mark.parametrize(('around', 'chunk_size'), [('image', 1), ('inner', 9)])
def test_with_look_ahead_it_equals_vni_fgsm_image_by_image(around, chunk_size, arguments, gradient_at):
    expected, other = [
        textbook(arguments, gradient_at, count=5, ahead=1, neighbors_ahead=ahead)
        for ahead in (around == 'inner', around != 'inner')
    ]
    assert np.max(np.abs(np.subtract(expected, other))) > 1e-4
    found = make(variance_tuned(RADIUS, 5, around, look_ahead(ALPHA, MU)), chunk_size=chunk_size)(*arguments)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)

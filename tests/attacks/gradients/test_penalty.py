import jax
import jax.numpy as jnp
import momentum_attack
import numpy as np
import pytest
from momentum_attack import ALPHA, MU, textbook_step

from rfn_jax.attacks.gradients.penalty import penalized_norm

ZETA = 0.3


def make(estimate, *, steps=3, **parts):
    return momentum_attack.make(estimate, steps=steps, **parts)


def textbook(arguments, gradient_at, *, count, delta):
    """Algorithm 1 of Ge et al. 2023, with the mean instead of the sum of absolute values, and the library's draws."""
    result = []
    for original, y, key in zip(arguments[1].astype(np.float64), *arguments[2:], strict=True):
        x, m = original, np.zeros_like(original)
        for t in range(3):
            g = np.zeros_like(x)
            for i in range(count):
                own = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, t + 1), i), 0)
                near = x + np.asarray(jax.random.uniform(own, x.shape, jnp.float32, -ZETA, ZETA), np.float64)
                g1 = gradient_at(near, y)
                g2 = gradient_at(near - ALPHA * g1 / np.mean(np.abs(g1)), y)
                g += ((1 - delta) * g1 + delta * g2) / count
            m = MU * m + g / np.mean(np.abs(g))
            x = textbook_step(x, m, original)
        result.append(x)
    return result


@pytest.mark.parametrize(('count', 'delta', 'chunk_size'), [(1, 0.5, 1), (4, 0.3, 1), (5, 0.0, 2), (2, 1.0, 9)])
def test_it_equals_pgn_image_by_image(count, delta, chunk_size, arguments, gradient_at):
    expected = textbook(arguments, gradient_at, count=count, delta=delta)
    found = make(penalized_norm(ZETA, ALPHA, count, delta), chunk_size=chunk_size)(*arguments)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)

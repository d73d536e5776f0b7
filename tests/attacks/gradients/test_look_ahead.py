import jax
import jax.numpy as jnp
import momentum_attack
import numpy as np
import optax
import pytest
from momentum_attack import ALPHA, textbook_step

from rfn_jax.attacks import GradientEstimate, accumulate, steepest
from rfn_jax.attacks.gradients.look_ahead import look_ahead
from rfn_jax.core.errors import InputError


def make(estimate, *, steps=4, **parts):
    return momentum_attack.make(estimate, steps=steps, **parts)


@pytest.mark.parametrize('mu', [0.0, 0.9, 1.0])
def test_it_equals_ni_fgsm_image_by_image(mu, arguments, gradient_at):
    # Lin et al. 2020, (5) and (6), with the mean absolute value instead of the L1 norm.
    expected = []
    for original, y in zip(arguments[1].astype(np.float64), arguments[2], strict=True):
        x, m = original, np.zeros_like(original)
        for _ in range(4):
            g = gradient_at(x + ALPHA * mu * m, y)
            m = mu * m + g / np.mean(np.abs(g))
            x = textbook_step(x, m, original)
        expected.append(x)
    found = make(look_ahead(ALPHA, mu), decay=mu)(*arguments)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def test_the_inner_estimate_gets_the_point_ahead_and_its_own_state(arguments):
    points = []

    def update(grad_fn, images, state, keys, step):
        jax.debug.callback(lambda x, s: points.append((np.array(x), int(s))), images, state)
        return grad_fn(images, keys), state + 1

    inner = GradientEstimate(lambda images: jnp.int32(0), update, lambda steps: 7 * steps)
    attack = make(look_ahead(ALPHA, 1.0, inner), steps=2)
    attack(*arguments)
    jax.effects_barrier()
    assert attack.gradient_evaluations == 14
    assert [state for _, state in points] == [0, 1]
    np.testing.assert_array_equal(points[0][0], arguments[1])
    after_one = make(look_ahead(ALPHA, 1.0), steps=1)(*arguments)
    # The momentum has mean absolute value 1, so the point ahead is alpha away in the mean.
    np.testing.assert_allclose(np.mean(np.abs(points[1][0] - after_one), axis=(1, 2, 3)), ALPHA, rtol=1e-4)


@pytest.mark.parametrize('count', [0, 2])
def test_the_direction_must_hold_one_momentum(count, arguments):
    direction = optax.chain(*[accumulate()] * count, steepest('l2'))
    with pytest.raises(InputError, match=f'must contain accumulate exactly once, got {count} momenta'):
        make(look_ahead(ALPHA), direction=direction)(*arguments)

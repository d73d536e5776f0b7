import jax
import jax.numpy as jnp
import momentum_attack
import numpy as np
import pytest
from momentum_attack import ALPHA, MU, textbook_step

from rfn_jax.attacks.penalty import penalised_norm
from rfn_jax.core.errors import InputError

ZETA = 0.3


def make(estimate, *, steps=3, **parts):
    return momentum_attack.make(estimate, steps=steps, **parts)


def textbook(arguments, gradient_at, *, count, delta):
    """Algorithm 1 of Ge et al. 2023, with the mean in the place of the sum of absolute values; the library's draws."""
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
    found = make(penalised_norm(ZETA, ALPHA, count, delta), chunk_size=chunk_size)(*arguments)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def test_the_evaluations_are_those_that_happen_and_both_gradients_of_a_neighbour_see_the_same_draws(arguments):
    seen = []

    def counted(images, keys):
        jax.debug.callback(lambda data: seen.append(np.array(data)), jax.random.key_data(keys))
        return images

    attack = make(penalised_norm(ZETA, ALPHA, 3), transforms=(counted,), steps=2)
    attack(*arguments)
    jax.effects_barrier()
    assert len(seen) == attack.gradient_evaluations == 12
    # One set of keys [4, 2] for each of the neighbours and steps, seen twice.
    drawn = [tuple(data.ravel().tolist()) for data in seen]
    assert len(set(drawn)) == 6
    assert all(drawn.count(keys) == 2 for keys in drawn)


def test_neither_the_batch_nor_the_order_matters(arguments):
    surrogate, images, labels, keys = arguments
    attack = make(penalised_norm(ZETA, ALPHA, 3))
    whole = attack(*arguments)
    np.testing.assert_allclose(attack(surrogate, images[1:3], labels[1:3], keys[1:3]), whole[1:3], atol=1e-6, rtol=0)
    turned = attack(surrogate, images[::-1], labels[::-1], keys[::-1])
    np.testing.assert_allclose(turned[::-1], whole, atol=1e-6, rtol=0)
    other_draws = attack(surrogate, images, labels, keys[::-1])
    assert np.max(np.abs(other_draws - whole)) > 1e-4


def test_a_zero_gradient_leaves_the_images_where_they_are(arguments):
    found = make(penalised_norm(ZETA, ALPHA, 2))(lambda x: jnp.zeros((len(x), 5)), *arguments[1:])
    np.testing.assert_array_equal(found, arguments[1])


def test_half_precision_images_work(arguments):
    surrogate, images, *rest = arguments
    found = make(penalised_norm(ZETA, ALPHA, 2))(
        lambda x: surrogate(x.astype(jnp.float32)), images.astype(np.float16), *rest
    )
    assert found.dtype == jnp.float16
    assert np.all(np.max(np.abs(found.astype(np.float32) - images), axis=(1, 2, 3)) > 0.05)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'radius': 0.0}, r'radius must be a finite number above 0, got 0\.0'),
        ({'radius': float('nan')}, 'radius must be a finite number above 0, got nan'),
        ({'step_size': -0.1}, r'step_size must be a finite number above 0, got -0\.1'),
        ({'step_size': None}, 'step_size must be a finite number above 0, got None'),
        ({'neighbours': 0}, 'neighbours must be a whole number of at least 1, got 0'),
        ({'neighbours': True}, 'neighbours must be a whole number of at least 1, got True'),
        ({'balance': 1.1}, r'balance must be a number in \[0, 1\], got 1\.1'),
        ({'balance': float('nan')}, r'balance must be a number in \[0, 1\], got nan'),
    ],
)
def test_errors_name_the_value(change, message):
    with pytest.raises(InputError, match=message):
        penalised_norm(**({'radius': 0.1, 'step_size': 0.1} | change))

import jax
import jax.numpy as jnp
import momentum_attack
import numpy as np
import pytest
from momentum_attack import ALPHA, EPS, MU, textbook_step

from rfn_jax.attacks import AT_IMAGE
from rfn_jax.attacks.look_ahead import look_ahead
from rfn_jax.attacks.variance import variance_tuned
from rfn_jax.core.errors import InputError

RADIUS = 0.3


def make(estimate, *, steps=3, **parts):
    return momentum_attack.make(estimate, steps=steps, **parts)


def textbook(arguments, gradient_at, *, count, ahead, neighbours_ahead):
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
                total += gradient_at(x + r + neighbours_ahead * ALPHA * MU * m, y)
            m = MU * m + (g + v) / np.mean(np.abs(g + v))
            v = total / count - g
            x = textbook_step(x, m, original)
        result.append(x)
    return result


@pytest.mark.parametrize(('count', 'chunk_size'), [(1, 1), (5, 2)])
def test_at_the_image_it_equals_vmi_fgsm_image_by_image(count, chunk_size, arguments, gradient_at):
    expected = textbook(arguments, gradient_at, count=count, ahead=0, neighbours_ahead=0)
    found = make(variance_tuned(RADIUS, count), chunk_size=chunk_size)(*arguments)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    without = make(AT_IMAGE)(*arguments)
    assert np.max(np.abs(found - without)) > 1e-3


@pytest.mark.parametrize(('around', 'chunk_size'), [('image', 1), ('inner', 9)])
def test_with_look_ahead_it_equals_vni_fgsm_image_by_image(around, chunk_size, arguments, gradient_at):
    expected, other = [
        textbook(arguments, gradient_at, count=5, ahead=1, neighbours_ahead=ahead)
        for ahead in (around == 'inner', around != 'inner')
    ]
    assert np.max(np.abs(np.subtract(expected, other))) > 1e-4
    found = make(variance_tuned(RADIUS, 5, around, look_ahead(ALPHA, MU)), chunk_size=chunk_size)(*arguments)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize('around', ['image', 'inner'])
def test_the_evaluations_are_those_that_happen_each_with_keys_of_its_own(around, arguments):
    seen = []

    def counted(images, keys):
        jax.debug.callback(lambda data: seen.append(np.array(data)), jax.random.key_data(keys))
        return images

    inner = variance_tuned(RADIUS, 2)
    attack = make(variance_tuned(RADIUS, 3, around, inner), transforms=(counted,), steps=2)
    attack(*arguments)
    jax.effects_barrier()
    assert len(seen) == attack.gradient_evaluations == 2 * {'image': 3 + 3, 'inner': 3 + 3 * 3}[around]
    assert len({tuple(row) for data in seen for row in data.reshape(-1, 2).tolist()}) == 4 * len(seen)


def test_neither_the_batch_nor_the_order_matters(arguments):
    surrogate, images, labels, keys = arguments
    attack = make(variance_tuned(RADIUS, 3))
    whole = attack(*arguments)
    np.testing.assert_allclose(attack(surrogate, images[1:3], labels[1:3], keys[1:3]), whole[1:3], atol=1e-6, rtol=0)
    turned = attack(surrogate, images[::-1], labels[::-1], keys[::-1])
    np.testing.assert_allclose(turned[::-1], whole, atol=1e-6, rtol=0)
    other_draws = attack(surrogate, images, labels, keys[::-1])
    assert np.max(np.abs(other_draws - whole)) > 1e-4


def test_a_zero_gradient_leaves_the_images_where_they_are(arguments):
    found = make(variance_tuned(RADIUS, 3))(lambda x: jnp.zeros((len(x), 5)), *arguments[1:])
    np.testing.assert_array_equal(found, arguments[1])


def test_half_precision_images_keep_a_state_of_single_precision(arguments):
    surrogate, images, *rest = arguments
    attack = make(variance_tuned(RADIUS, 3, inner=look_ahead(ALPHA)))
    found = attack(lambda x: surrogate(x.astype(jnp.float32)), images.astype(np.float16), *rest)
    assert found.dtype == jnp.float16
    assert np.max(np.abs(found.astype(np.float32) - images)) > EPS / 20


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'radius': 0.0}, r'radius must be a finite number above 0, got 0\.0'),
        ({'radius': float('inf')}, 'radius must be a finite number above 0, got inf'),
        ({'radius': float('nan')}, 'radius must be a finite number above 0, got nan'),
        ({'radius': True}, 'radius must be a finite number above 0, got True'),
        ({'radius': 0.1, 'neighbours': 0}, 'neighbours must be a whole number of at least 1, got 0'),
        ({'radius': 0.1, 'neighbours': 2.0}, r'neighbours must be a whole number of at least 1, got 2\.0'),
        ({'radius': 0.1, 'around': 'images'}, "unknown around 'images'; did you mean 'image'"),
    ],
)
def test_errors_name_the_value(arguments, message):
    with pytest.raises(InputError, match=message):
        variance_tuned(**arguments)

import jax
import jax.numpy as jnp
import momentum_attack
import numpy as np
import pytest
from momentum_attack import ALPHA, MU, textbook_step

from rfn_jax.attacks.enhanced import enhanced_momentum
from rfn_jax.attacks.variance import variance_tuned
from rfn_jax.core.errors import InputError


def make(estimate, *, steps=4, **parts):
    return momentum_attack.make(estimate, steps=steps, **parts)


@pytest.mark.parametrize(('count', 'eta', 'chunk_size'), [(2, 0.5, 1), (5, 1.5, 1), (5, 1.5, 3)])
def test_it_equals_emi_fgsm_image_by_image(count, eta, chunk_size, arguments, gradient_at):
    # Wang et al. 2021 with linear sampling.
    expected = []
    for original, y in zip(arguments[1].astype(np.float64), arguments[2], strict=True):
        x, m, bar = original, np.zeros_like(original), np.zeros_like(original)
        for _ in range(4):
            g = np.zeros_like(x)
            for i in range(count):
                c = -eta + 2 * eta * i / (count - 1)
                g += gradient_at(x + c * ALPHA * bar, y) / count
            bar = g / np.mean(np.abs(g))
            m = MU * m + bar
            x = textbook_step(x, m, original)
        expected.append(x)
    found = make(enhanced_momentum(ALPHA, count, eta), chunk_size=chunk_size)(*arguments)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def test_the_evaluations_are_those_that_happen_each_with_keys_of_its_own(arguments):
    seen = []

    def counted(images, keys):
        jax.debug.callback(lambda data: seen.append(np.array(data)), jax.random.key_data(keys))
        return images

    attack = make(enhanced_momentum(ALPHA, 3), transforms=(counted,), steps=2)
    attack(*arguments)
    jax.effects_barrier()
    assert len(seen) == attack.gradient_evaluations == 6
    assert len({tuple(row) for data in seen for row in data.reshape(-1, 2).tolist()}) == 4 * 6


def test_it_can_be_tuned_by_its_variance(arguments):
    attack = make(variance_tuned(0.1, 2, 'inner', enhanced_momentum(ALPHA, 3, 1.0)), steps=2)
    assert attack.gradient_evaluations == 2 * (1 + 2) * 3
    assert np.max(np.abs(attack(*arguments) - arguments[1])) > 0.05


def test_neither_the_batch_nor_the_order_matters(arguments):
    surrogate, images, labels, keys = arguments
    attack = make(enhanced_momentum(ALPHA, 3, 1.0))
    whole = attack(*arguments)
    np.testing.assert_allclose(attack(surrogate, images[1:3], labels[1:3], keys[1:3]), whole[1:3], atol=1e-6, rtol=0)
    turned = attack(surrogate, images[::-1], labels[::-1], keys[::-1])
    np.testing.assert_allclose(turned[::-1], whole, atol=1e-6, rtol=0)


def test_a_zero_gradient_leaves_the_images_where_they_are(arguments):
    found = make(enhanced_momentum(ALPHA, 3))(lambda x: jnp.zeros((len(x), 5)), *arguments[1:])
    np.testing.assert_array_equal(found, arguments[1])


def test_half_precision_images_keep_a_state_of_single_precision(arguments):
    surrogate, images, *rest = arguments
    attack = make(enhanced_momentum(ALPHA, 3, 1.0))
    found = attack(lambda x: surrogate(x.astype(jnp.float32)), images.astype(np.float16), *rest)
    assert found.dtype == jnp.float16
    assert np.all(np.max(np.abs(found.astype(np.float32) - images), axis=(1, 2, 3)) > 0.05)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'step_size': 0}, 'step_size must be a finite number above 0, got 0'),
        ({'step_size': True}, 'step_size must be a finite number above 0, got True'),
        ({'radius': float('inf')}, 'radius must be a finite number above 0, got inf'),
        ({'samples': 1}, 'samples must be a whole number of at least 2, got 1'),
        ({'samples': 11.0}, r'samples must be a whole number of at least 2, got 11\.0'),
    ],
)
def test_errors_name_the_value(change, message):
    with pytest.raises(InputError, match=message):
        enhanced_momentum(**({'step_size': 0.1} | change))

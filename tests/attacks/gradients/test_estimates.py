"""What holds for every gradient estimate in an attack; the comparisons with textbook versions are in separate files."""

import jax
import jax.numpy as jnp
import momentum_attack
import numpy as np
import pytest
from momentum_attack import ALPHA

from rfn_jax.attacks.gradients.enhanced import enhanced_momentum
from rfn_jax.attacks.gradients.look_ahead import look_ahead
from rfn_jax.attacks.gradients.penalty import penalized_norm
from rfn_jax.attacks.gradients.reverse import reverse_perturbation
from rfn_jax.attacks.gradients.variance import variance_tuned

STEPS = 3
NEAR = 0.3
# Each with the number of gradients that it takes in three steps.
ESTIMATES = {
    'look_ahead': (look_ahead(ALPHA), 3),
    'variance': (variance_tuned(NEAR, 3), 3 * (1 + 3)),
    'variance around variance': (variance_tuned(NEAR, 3, 'image', variance_tuned(NEAR, 2)), 3 * (3 + 3)),
    'variance of variance': (variance_tuned(NEAR, 3, 'inner', variance_tuned(NEAR, 2)), 3 * (3 + 3 * 3)),
    'variance of enhanced': (variance_tuned(NEAR, 2, 'inner', enhanced_momentum(ALPHA, 3, 1.0)), 3 * (1 + 2) * 3),
    'penalty': (penalized_norm(NEAR, ALPHA, 3), 3 * 2 * 3),
    'enhanced': (enhanced_momentum(ALPHA, 3, 1.0), 3 * 3),
    'reverse': (reverse_perturbation(0.2, 0.06, 3, 1), 3 + 2 * 3),
    'reverse from the start': (reverse_perturbation(0.2, 0.06, 3, 0), 3 + 3 * 3),
    'reverse at the end': (reverse_perturbation(0.2, 0.06, 3, 3), 3),
    'reverse around variance': (reverse_perturbation(0.2, 0.06, 3, 1, inner=variance_tuned(0.1, 2)), 3 * 3 + 2 * 3),
}
DRAWS = sorted(set(ESTIMATES) - {'look_ahead', 'enhanced', 'reverse at the end'})
every = pytest.mark.parametrize('name', ESTIMATES)


def make(name, **parts):
    return momentum_attack.make(ESTIMATES[name][0], steps=STEPS, **parts)


@every
def test_the_evaluations_are_counted_correctly_and_each_has_its_own_keys(name, arguments):
    seen = []

    def counted(images, keys):
        jax.debug.callback(lambda data: seen.append(np.array(data)), jax.random.key_data(keys))
        return images

    attack = make(name, transforms=(counted,))
    attack(*arguments)
    jax.effects_barrier()
    assert len(seen) == attack.gradient_evaluations == ESTIMATES[name][1]
    drawn = [tuple(row) for data in seen for row in data.reshape(-1, 2).tolist()]
    twice = 2 if name == 'penalty' else 1  # both gradients of a neighbor see the same draws
    assert all(drawn.count(keys) == twice for keys in drawn)


@every
def test_neither_the_batch_nor_the_order_matters(name, arguments):
    surrogate, images, labels, keys = arguments
    attack = make(name)
    whole = attack(*arguments)
    np.testing.assert_allclose(attack(surrogate, images[1:3], labels[1:3], keys[1:3]), whole[1:3], atol=1e-6, rtol=0)
    turned = attack(surrogate, images[::-1], labels[::-1], keys[::-1])
    np.testing.assert_allclose(turned[::-1], whole, atol=1e-6, rtol=0)
    other_draws = attack(surrogate, images, labels, keys[::-1])
    assert (np.max(np.abs(other_draws - whole)) > 1e-4) == (name in DRAWS)


@every
def test_a_zero_gradient_leaves_the_images_where_they_are(name, arguments):
    found = make(name)(lambda x: jnp.zeros((len(x), 5)), *arguments[1:])
    np.testing.assert_array_equal(found, arguments[1])


@every
def test_half_precision_images_work(name, arguments):
    surrogate, images, *rest = arguments
    found = make(name)(lambda x: surrogate(x.astype(jnp.float32)), images.astype(np.float16), *rest)
    assert found.dtype == jnp.float16
    assert np.all(np.max(np.abs(found.astype(np.float32) - images), axis=(1, 2, 3)) > 0.05)

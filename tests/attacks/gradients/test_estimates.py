"""Gradient estimates in an attack with momentum: the algorithms of their papers, and what holds for every estimate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from attacks import ascent
from quick_attacks import slow

from rfn_jax.attacks import Budget, GradientAttack, GradientEstimate, accumulate, steepest
from rfn_jax.attacks.gradients.enhanced import enhanced_momentum
from rfn_jax.attacks.gradients.look_ahead import look_ahead
from rfn_jax.attacks.gradients.penalty import penalized_norm
from rfn_jax.attacks.gradients.reverse import reverse_perturbation
from rfn_jax.attacks.gradients.variance import variance_tuned
from rfn_jax.core.errors import InputError

EPS = 1.0  # in l2, large enough for the gradient to turn on the way
ALPHA = EPS / 4
MU = 0.9
NEAR = 0.3
RADIUS, INNER_STEP = 0.2, 0.06


@functools.cache
def make(estimate, *, steps=4, decay=MU, direction=None, **parts):
    """The attack; `parts` are other arguments of `GradientAttack`."""
    direction = direction or optax.chain(accumulate(decay), steepest('l2'))
    options = {'step_size': ALPHA, 'direction': direction} | parts
    return GradientAttack(name='test', limits=Budget(EPS, 'l2'), steps=steps, gradient=estimate, **options)


@pytest.fixture(scope='module')
def arguments(problem):
    return problem.surrogate, problem.images[:4], problem.labels[:4], jax.random.split(jax.random.key(5), 4)


# A textbook estimate is a function of `at`, which gives the loss and the gradient at a point, the image, the momentum, the
# number and the key of the step, and a dictionary of what it remembers. The draws are those of the library.


def ni_fgsm(mu):
    """Lin et al. 2020, (5) and (6), with the mean absolute value instead of the L1 norm."""
    return lambda at, x, m, *_: at(x + ALPHA * mu * m)[1]


def vmi_fgsm(count, ahead=0, neighbors_ahead=0):
    """Algorithm 1 of Wang and He 2021."""

    def gradient(at, x, m, t, key, memory):
        g = at(x + ahead * ALPHA * MU * m)[1]
        points = [x + ascent.uniform(key, (i + 1, 0), x.shape, NEAR) for i in range(count)]
        neighbors = sum(at(point + neighbors_ahead * ALPHA * MU * m)[1] for point in points)
        tuned = g + memory.get('variance', 0)
        memory['variance'] = neighbors / count - g
        return tuned

    return gradient


def pgn(count, delta):
    """Algorithm 1 of Ge et al. 2023, with the mean instead of the sum of absolute values."""

    def gradient(at, x, m, t, key, memory):
        total = np.zeros_like(x)
        for i in range(count):
            near = x + ascent.uniform(key, (i, 0), x.shape, NEAR)
            g1 = at(near)[1]
            g2 = at(near - ALPHA * g1 / np.mean(np.abs(g1)))[1]
            total += ((1 - delta) * g1 + delta * g2) / count
        return total

    return gradient


def emi_fgsm(count, eta):
    """Wang et al. 2021 with linear sampling."""

    def gradient(at, x, m, t, key, memory):
        bar = memory.get('bar', 0)
        g = sum(at(x + (-eta + 2 * eta * i / (count - 1)) * ALPHA * bar)[1] for i in range(count)) / count
        memory['bar'] = g / np.mean(np.abs(g))
        return g

    return gradient


def rap(late_start, random_start):
    """Qin et al. 2022, with the start and the clipping of the authors' code."""

    def gradient(at, x, m, t, key, memory):
        n = np.zeros_like(x)
        if t >= late_start:
            if random_start:
                n = np.clip(x + ascent.uniform(key, (1,), x.shape, RADIUS), 0, 1) - x
            before, _ = at(x + n)
            for _ in range(4):
                n = np.clip(n - INNER_STEP * np.sign(at(x + n)[1]), -RADIUS, RADIUS)
                n = np.clip(x + n, 0, 1) - x
            assert at(x + n)[0] < before
        return at(x + n)[1]

    return gradient


def reverse(late_start, random_start):
    return reverse_perturbation(RADIUS, INNER_STEP, 4, late_start, random_start)


AHEAD = look_ahead(ALPHA, MU)
# The estimate, its textbook, the decay of the momentum and the chunk size.
CASES = [
    slow(look_ahead(ALPHA, 0.0), ni_fgsm(0.0), 0.0, 1),
    (look_ahead(ALPHA, 0.9), ni_fgsm(0.9), 0.9, 1),
    slow(look_ahead(ALPHA, 1.0), ni_fgsm(1.0), 1.0, 1),
    slow(variance_tuned(NEAR, 1), vmi_fgsm(1), MU, 1),
    (variance_tuned(NEAR, 5), vmi_fgsm(5), MU, 2),
    (variance_tuned(NEAR, 5, 'image', AHEAD), vmi_fgsm(5, ahead=1), MU, 1),
    (variance_tuned(NEAR, 5, 'inner', AHEAD), vmi_fgsm(5, ahead=1, neighbors_ahead=1), MU, 9),
    slow(penalized_norm(NEAR, ALPHA, 1, 0.5), pgn(1, 0.5), MU, 1),
    (penalized_norm(NEAR, ALPHA, 4, 0.3), pgn(4, 0.3), MU, 1),
    slow(penalized_norm(NEAR, ALPHA, 5, 0.0), pgn(5, 0.0), MU, 2),
    slow(penalized_norm(NEAR, ALPHA, 2, 1.0), pgn(2, 1.0), MU, 9),
    (enhanced_momentum(ALPHA, 2, 0.5), emi_fgsm(2, 0.5), MU, 1),
    slow(enhanced_momentum(ALPHA, 5, 1.5), emi_fgsm(5, 1.5), MU, 1),
    (enhanced_momentum(ALPHA, 5, 1.5), emi_fgsm(5, 1.5), MU, 3),
    slow(reverse(0, True), rap(0, True), 0.0, 1),
    (reverse(0, False), rap(0, False), 0.0, 1),
    (reverse(2, True), rap(2, True), 0.0, 1),
    slow(reverse(9, True), rap(9, True), 0.0, 1),
]


@pytest.mark.parametrize(('estimate', 'gradient', 'decay', 'chunk_size'), CASES)
def test_it_equals_the_paper_image_by_image(estimate, gradient, decay, chunk_size, arguments, loss_and_gradient):
    expected = []
    for original, y, key in zip(arguments[1].astype(np.float64), *arguments[2:], strict=True):
        x, m, memory = original, np.zeros_like(original), {}
        for t in range(4):
            step_key = jax.random.fold_in(key, t + 1)
            g = gradient(lambda x, y=y: loss_and_gradient(x, y), x, m, t, step_key, memory)
            m = decay * m + g / np.mean(np.abs(g))
            x = ascent.step(x, m, original, norm='l2', eps=EPS, alpha=ALPHA)
        expected.append(x)
    found = make(estimate, decay=decay, chunk_size=chunk_size)(*arguments)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


STEPS = 3
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
COSTLY = {name for name in ESTIMATES if len(name.split()) > 1} - {'reverse at the end'}
every = pytest.mark.parametrize('name', [slow(name) if name in COSTLY else name for name in ESTIMATES])


def make_named(name, **parts):
    return make(ESTIMATES[name][0], steps=STEPS, **parts)


def test_the_evaluations_are_declared():
    declared = {name: make_named(name).gradient_evaluations for name in ESTIMATES}
    assert declared == {name: evaluations for name, (_, evaluations) in ESTIMATES.items()}


@every
def test_the_evaluations_are_counted_correctly_and_each_has_its_own_keys(name, arguments):
    seen = []

    def counted(images, keys):
        jax.debug.callback(lambda data: seen.append(np.array(data)), jax.random.key_data(keys))
        return images

    attack = make_named(name, transforms=(counted,))
    attack(*arguments)
    jax.effects_barrier()
    assert len(seen) == attack.gradient_evaluations == ESTIMATES[name][1]
    drawn = [tuple(row) for data in seen for row in data.reshape(-1, 2).tolist()]
    twice = 2 if name == 'penalty' else 1  # both gradients of a neighbor see the same draws
    assert all(drawn.count(keys) == twice for keys in drawn)


@pytest.mark.slow
@every
def test_neither_the_batch_nor_the_order_matters(name, arguments):
    surrogate, images, labels, keys = arguments
    attack = make_named(name)
    whole = attack(*arguments)
    for rows in ([3, 2, 1, 0], [1, 2, 2, 0]):
        rows = np.array(rows)
        found = attack(surrogate, images[rows], labels[rows], keys[rows])
        np.testing.assert_allclose(found, whole[rows], atol=1e-6, rtol=0)
    other_draws = attack(surrogate, images, labels, keys[::-1])
    assert (np.max(np.abs(other_draws - whole)) > 1e-4) == (name in DRAWS)


@pytest.mark.parametrize('name', [n if n in ('penalty', 'enhanced') else slow(n) for n in ESTIMATES])
def test_a_zero_gradient_leaves_the_images_where_they_are(name, problem, arguments):
    flat = jax.tree_util.Partial(problem.apply, problem.variables | {'dense': jnp.zeros((24, 5))})
    np.testing.assert_array_equal(make_named(name)(flat, *arguments[1:]), arguments[1])


@pytest.mark.parametrize('name', [n if n == 'variance' else slow(n) for n in ESTIMATES])
def test_half_precision_images_work(name, arguments):
    surrogate, images, *rest = arguments
    found = make_named(name)(lambda x: surrogate(x.astype(jnp.float32)), images.astype(np.float16), *rest)
    assert found.dtype == jnp.float16
    assert np.all(np.max(np.abs(found.astype(np.float32) - images), axis=(1, 2, 3)) > 0.05)


def test_the_inner_estimate_of_look_ahead_gets_the_point_ahead_and_its_own_state(arguments):
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
def test_the_direction_of_look_ahead_must_hold_one_momentum(count, arguments):
    direction = optax.chain(*[accumulate()] * count, steepest('l2'))
    with pytest.raises(InputError, match=f'must contain accumulate exactly once, got {count} momenta'):
        make(look_ahead(ALPHA), direction=direction)(*arguments)

"""The basic recipes in every norm: slow textbook twins, and invariants (those of all attacks are in `test_suite.py`)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfn_jax import data
from rfn_jax.attacks import ATTACKS, Budget, bim, fgsm, mi_fgsm, pgd, uniform_in_ball
from rfn_jax.core import rng, sharding

EPS = {'linf': 8 / 255, 'l2': 0.5}
STEPS = 5
DECAY = 0.9


def make(name, norm, *, eps=None, step_size=None, steps=STEPS):
    eps = EPS[norm] if eps is None else eps
    options = {'eps': eps, 'norm': norm}
    if name != 'fgsm':
        options |= {'step_size': eps / 4 if step_size is None else step_size, 'steps': steps}
    if name == 'mi_fgsm':
        options['decay'] = DECAY
    return ATTACKS.make(name, **options)


BASIC = ('bim', 'fgsm', 'mi_fgsm', 'pgd')
TABLE = {(name, norm): make(name, norm) for name in BASIC for norm in EPS}
every_attack = pytest.mark.parametrize(('name', 'norm'), list(TABLE))


def textbook(name, norm, gradient, starts, originals, labels):
    """The attack of the papers, image by image in float64: x_{t+1} = clip(x_t + alpha * direction).

    `gradient(x, y)` is that of the loss J(x, y) at one image. Gradients whose sign is used must not be near zero.
    """
    eps = EPS[norm]
    alpha, steps = (eps, 1) if name == 'fgsm' else (eps / 4, STEPS)
    results = []
    for start, original, label in zip(starts, originals.astype(np.float64), labels, strict=True):
        x, g = np.asarray(start, np.float64), np.zeros(original.shape)
        for _ in range(steps):
            dx = np.asarray(gradient(x, label), np.float64)
            g = DECAY * g + dx / np.sum(np.abs(dx)) if name == 'mi_fgsm' else dx
            if norm == 'linf':
                assert np.min(np.abs(g)) > 1e-6 * np.mean(np.abs(g)), 'choose another problem: a sign is not stable'
                x = x + alpha * np.sign(g)
                x = np.minimum(np.maximum(x, original - eps), original + eps)
            else:
                x = x + alpha * g / np.sqrt(np.sum(g**2))
                distance = np.sqrt(np.sum((x - original) ** 2))
                if distance > eps:
                    x = original + (x - original) * eps / distance
            x = np.minimum(np.maximum(x, 0.0), 1.0)
        results.append(x)
    return np.stack(results)


def starting_points(name, norm, images, keys):
    """Where the twin starts; the start uses key 0 of each example."""
    if name != 'pgd':
        return images
    start_keys = jnp.stack([jax.random.fold_in(key, 0) for key in keys])
    return np.asarray(uniform_in_ball(jnp.asarray(images), start_keys, Budget(EPS[norm], norm)))


def linear_logits(variables, images):
    return images.reshape(len(images), -1) @ variables['W'] + variables['b']


@every_attack
def test_recipe_equals_its_twin_on_a_linear_model_with_the_gradient_by_hand(name, norm):
    generator = np.random.default_rng(0)
    shape, classes = (4, 3, 2), 4
    W = generator.normal(size=(24, classes)).astype(np.float32)
    b = generator.normal(size=classes).astype(np.float32)
    images = generator.uniform(size=(5, *shape)).astype(np.float32)
    labels = generator.integers(classes, size=5).astype(np.int32)

    def gradient(x, y):  # of J = log sum_k exp(z_k) - z_y, with z = W^T x + b
        z = x.reshape(-1) @ W.astype(np.float64) + b
        p = np.exp(z - z.max()) / np.sum(np.exp(z - z.max()))
        p[y] -= 1
        return (W.astype(np.float64) @ p).reshape(shape)

    keys = jax.random.split(jax.random.key(0), 5)
    expected = textbook(name, norm, gradient, starting_points(name, norm, images, keys), images, labels)
    surrogate = jax.tree_util.Partial(linear_logits, {'W': W, 'b': b})
    adversarial = TABLE[name, norm](surrogate, images, labels, keys)
    np.testing.assert_allclose(adversarial, expected, atol=1e-6, rtol=0)
    assert np.max(np.abs(expected - images)) > EPS[norm] / 10


@every_attack
def test_recipe_equals_its_twin_on_a_network_with_the_gradient_of_jax(name, norm, problem, network_gradient):
    images, labels, keys = problem.images, problem.labels, keys_of(problem)
    expected = textbook(name, norm, network_gradient, starting_points(name, norm, images, keys), images, labels)
    adversarial = TABLE[name, norm](problem.surrogate, images, labels, keys)
    np.testing.assert_allclose(adversarial, expected, atol=1e-6, rtol=0)


@pytest.fixture(scope='module')
def network_gradient(problem):
    """The gradient of the cross-entropy of one image, compiled once, outside any loop."""

    @jax.jit
    def gradient(x, y):
        return jax.grad(lambda x: -jax.nn.log_softmax(problem.apply(problem.variables, x[None])[0])[y])(x)

    return lambda x, y: gradient(jnp.asarray(x, jnp.float32), y)


def keys_of(problem):
    return rng.example_keys(jax.random.key(7), problem.ids)


@every_attack
def test_adversarial_images_are_in_the_ball_and_in_the_box(name, norm, problem):
    adversarial = TABLE[name, norm](problem.surrogate, problem.images, problem.labels, keys_of(problem))
    assert adversarial.shape == problem.images.shape
    assert adversarial.dtype == problem.images.dtype
    adversarial = np.asarray(adversarial)
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    sizes = distances(adversarial, problem.images, norm)
    assert np.all(sizes <= EPS[norm] + 1e-6)
    assert np.all(sizes > 0.5 * EPS[norm])  # the budget is used


def distances(adversarial, originals, norm):
    change = (np.asarray(adversarial, np.float64) - originals).reshape(len(originals), -1)
    return np.max(np.abs(change), axis=1) if norm == 'linf' else np.sqrt(np.sum(change**2, axis=1))


@pytest.mark.parametrize('norm', list(EPS))
@pytest.mark.parametrize('name', sorted(set(BASIC) - {'fgsm'}))
def test_many_long_steps_stay_in_the_budget(name, norm, problem):
    attack = make(name, norm, steps=40, step_size=3 * EPS[norm])
    adversarial = np.asarray(attack(problem.surrogate, problem.images, problem.labels, keys_of(problem)))
    assert np.all(distances(adversarial, problem.images, norm) <= EPS[norm] + 1e-6)
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1


@every_attack
def test_an_adversarial_image_does_not_depend_on_its_batch(name, norm, problem):
    attack, keys = TABLE[name, norm], keys_of(problem)
    whole = np.asarray(attack(problem.surrogate, problem.images, problem.labels, keys))
    for size in (1, 7):
        parts = [slice(start, start + size) for start in range(0, len(whole), size)]
        batched = [attack(problem.surrogate, problem.images[p], problem.labels[p], keys[p]) for p in parts]
        np.testing.assert_allclose(np.concatenate(batched), whole, atol=1e-5, rtol=0)
    order = np.random.default_rng(0).permutation(len(whole))
    shuffled = attack(problem.surrogate, problem.images[order], problem.labels[order], keys[order])
    np.testing.assert_allclose(shuffled, whole[order], atol=1e-5, rtol=0)


@every_attack
def test_an_adversarial_image_does_not_depend_on_the_number_of_devices(name, norm, problem):
    whole = TABLE[name, norm](problem.surrogate, problem.images, problem.labels, keys_of(problem))
    mesh = sharding.data_mesh()
    assert mesh.size == 8, 'the tests need 8 virtual devices'
    on_devices = [
        jax.device_put(value[:8], sharding.batch_sharding(mesh))
        for value in (problem.images, problem.labels, keys_of(problem))
    ]
    surrogate = jax.device_put(problem.surrogate, sharding.replicated(mesh))
    sharded = TABLE[name, norm](surrogate, *on_devices)
    assert len(sharded.sharding.device_set) == 8
    np.testing.assert_allclose(sharded, whole[:8], atol=1e-5, rtol=0)


@every_attack
def test_jit_of_an_attack_is_the_attack(name, norm, problem):
    arguments = problem.surrogate, problem.images, problem.labels, keys_of(problem)
    np.testing.assert_allclose(jax.jit(TABLE[name, norm])(*arguments), TABLE[name, norm](*arguments), atol=1e-5, rtol=0)


@every_attack
def test_two_checkpoints_of_one_architecture_share_a_compilation(name, norm, problem):
    def attacked(variables):
        surrogate = jax.tree_util.Partial(problem.apply, variables)
        return TABLE[name, norm](surrogate, problem.images, problem.labels, keys_of(problem))

    one = attacked(problem.variables)
    traces = len(problem.traces)
    other = attacked(problem.other_variables)
    assert len(problem.traces) == traces
    assert np.max(np.abs(one - other)) > EPS[norm] / 20
    assert problem.images.shape in problem.traces  # so they are counted


@every_attack
def test_only_pgd_depends_on_the_key(name, norm, problem):
    arguments = problem.surrogate, problem.images, problem.labels
    one, other = (
        np.asarray(TABLE[name, norm](*arguments, rng.example_keys(jax.random.key(seed), problem.ids)))
        for seed in (0, 1)
    )
    differs = np.any(one != other, axis=(1, 2, 3))
    assert np.all(differs) if name == 'pgd' else not np.any(differs)


@every_attack
def test_a_zero_gradient_leaves_the_images_as_they_are(name, norm, problem):
    surrogate = jax.tree_util.Partial(problem.apply, problem.variables | {'dense': jnp.zeros((24, 5))})
    keys = keys_of(problem)
    adversarial = TABLE[name, norm](surrogate, problem.images, problem.labels, keys)
    expected = starting_points(name, norm, problem.images, keys)
    np.testing.assert_allclose(adversarial, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize('norm', list(EPS))
def test_momentum_is_normalized_for_each_image(norm, problem):
    # Another image of the batch has a gradient many times as large, and a saturated one has almost none.
    def logits(scales, images):
        return scales[:, None] * problem.apply(problem.variables, images)

    scales = np.ones(14, np.float32)
    results = []
    for first in (1.0, 1e-4, 50.0):
        scales[0] = first
        surrogate = jax.tree_util.Partial(logits, jnp.array(scales))
        attack = TABLE['mi_fgsm', norm]
        results.append(np.asarray(attack(surrogate, problem.images, problem.labels, keys_of(problem))))
    for result in results[1:]:
        np.testing.assert_allclose(result[1:], results[0][1:], atol=1e-6, rtol=0)


@pytest.fixture(scope='module')
def softmax_regression():
    """A surrogate fitted to the digits in a second, and the validation images that it classifies correctly."""
    splits = data.digits()

    def loss_fn(variables, images, labels):
        return optax.softmax_cross_entropy_with_integer_labels(linear_logits(variables, images), labels).mean()

    @jax.jit
    def fit(variables, images, labels):
        tx = optax.adam(0.05)

        def step(carry, _):
            variables, state = carry
            updates, state = tx.update(jax.grad(loss_fn)(variables, images, labels), state)
            return (optax.apply_updates(variables, updates), state), None

        return jax.lax.scan(step, (variables, tx.init(variables)), length=100)[0][0]

    zeros = {'W': jnp.zeros((64, 10)), 'b': jnp.zeros(10)}
    variables = fit(zeros, splits.train.images.astype(np.float32) / 255, splits.train.labels)
    surrogate = jax.tree_util.Partial(linear_logits, variables)
    images = splits.validation.images.astype(np.float32) / 255
    right = np.argmax(surrogate(images), 1) == splits.validation.labels
    assert right.mean() > 0.9
    return surrogate, images[right][:100], splits.validation.labels[right][:100]


@every_attack
def test_white_box_success_rises_with_eps(name, norm, softmax_regression):
    surrogate, images, labels = softmax_regression
    rates = []
    for eps in {'linf': (0.5 / 255, 0.4), 'l2': (0.01, 3.0)}[norm]:
        adversarial = make(name, norm, eps=eps)(surrogate, images, labels, jax.random.key(0))
        rates.append(np.mean(np.argmax(surrogate(adversarial), 1) != labels))
    assert rates[0] < 0.05
    assert rates[1] > 0.9


def test_defaults_are_those_of_the_paper():
    for attack in (bim(), pgd(), mi_fgsm()):
        assert attack.limits == Budget(4 / 255, 'linf')
        assert attack.step_size == pytest.approx(0.4 / 255)
        assert attack.steps == attack.gradient_evaluations == 50
    assert (fgsm().step_size, fgsm().gradient_evaluations) == (4 / 255, 1)


def test_momentum_without_decay_is_bim(problem):
    arguments = problem.surrogate, problem.images, problem.labels, keys_of(problem)
    without = mi_fgsm(eps=0.05, step_size=0.02, steps=3, decay=0.0)
    np.testing.assert_allclose(
        without(*arguments), bim(eps=0.05, step_size=0.02, steps=3)(*arguments), atol=1e-6, rtol=0
    )

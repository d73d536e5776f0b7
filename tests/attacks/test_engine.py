import doctest

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfn_jax.attacks import (
    Budget,
    GradientAttack,
    GradientEstimate,
    SteppedSurrogate,
    engine,
    mi_fgsm,
    pgd,
    steepest,
)
from rfn_jax.core import losses, rng
from rfn_jax.core.errors import InputError
from rfn_jax.models import Classifier

EPS = 8 / 255


def make(*, steps=2, norm='linf', **parts):
    options = {'direction': steepest(norm), 'step_size': EPS / 2} | parts
    return GradientAttack(name='test', limits=Budget(EPS, norm), steps=steps, **options)


BIM = make()


@pytest.fixture(scope='module')
def keys(problem):
    return rng.example_keys(jax.random.key(7), problem.ids)


@pytest.fixture(scope='module')
def arguments(problem, keys):
    return problem.surrogate, problem.images, problem.labels, keys


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        assert not train
        return nn.Dense(5, name='dense')(x.reshape(len(x), -1))


def test_functions_partials_and_classifiers_are_surrogates(problem, keys):
    kernel = np.random.default_rng(0).normal(size=(108, 5)).astype(np.float32)
    bias = np.zeros(5, np.float32)

    def logits(kernel, images):
        return ((images - 0.4) / 0.3).reshape(len(images), -1) @ kernel

    surrogates = {
        'function': lambda images: logits(kernel, images),
        'partial': jax.tree_util.Partial(logits, kernel),
        'classifier': Classifier({'params': {'dense': {'kernel': kernel, 'bias': bias}}}, Dense(), 5, (0.4,), (0.3,)),
    }
    results = {name: BIM(surrogate, problem.images, problem.labels, keys) for name, surrogate in surrogates.items()}
    assert np.max(np.abs(results['function'] - problem.images)) == pytest.approx(EPS, abs=1e-6)
    np.testing.assert_allclose(results['partial'], results['function'], atol=1e-6, rtol=0)
    np.testing.assert_allclose(results['classifier'], results['function'], atol=1e-6, rtol=0)


def test_checkpoints_of_a_classifier_share_a_compilation(problem, keys):
    traces = []

    class Counted(Dense):
        def __call__(self, x, *, train):
            traces.append(x.shape)
            return super().__call__(x, train=train)

    module = Counted()
    results = []
    for seed in (0, 1):
        variables = module.init(jax.random.key(seed), problem.images[:1], train=False)
        before = len(traces)
        results.append(BIM(Classifier(variables, module, 5), problem.images, problem.labels, keys))
    assert before > 1  # the first call was traced, and the second was not
    assert len(traces) == before
    assert np.any(results[0] != results[1])


def test_one_key_stands_for_a_key_for_each_position(arguments):
    attack = pgd(eps=EPS, steps=1)
    surrogate, images, labels, _ = arguments
    key = jax.random.key(3)
    one = attack(surrogate, images, labels, key)
    np.testing.assert_array_equal(one, attack(surrogate, images, labels, jax.random.split(key, len(images))))


def test_a_transform_gets_its_own_key_at_every_step_for_every_example(arguments, keys):
    seen = []

    def recorded(index):
        def transform(images, step_keys):
            jax.debug.callback(lambda data: seen.append((index, np.array(data))), jax.random.key_data(step_keys))
            return images

        return transform

    make(steps=3, transforms=(recorded(0), recorded(1)))(*arguments)
    jax.effects_barrier()
    assert len(seen) == 2 * 3
    drawn = {tuple(row) for _, data in seen for row in data.tolist()}
    assert len(drawn) == 2 * 3 * len(keys)
    expected = {
        (index, *jax.random.key_data(jax.random.fold_in(jax.random.fold_in(keys[0], t + 1), index)).tolist())
        for t in range(3)
        for index in range(2)
    }
    assert {(index, *data[0].tolist()) for index, data in seen} == expected


def test_random_transforms_depend_on_the_example_and_not_on_the_batch(arguments, keys):
    def blend(images, step_keys):
        draw = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:]))
        return 0.5 * images + 0.5 * draw(step_keys)

    attack = make(transforms=(blend,), norm='l2')
    surrogate, images, labels, _ = arguments
    whole = np.asarray(attack(*arguments))
    part = attack(surrogate, images[5:9], labels[5:9], keys[5:9])
    np.testing.assert_allclose(part, whole[5:9], atol=1e-5, rtol=0)
    other = np.asarray(attack(surrogate, images, labels, keys[::-1]))
    assert np.all(np.any(np.abs(other - whole) > 1e-5, axis=(1, 2, 3)))


def test_transforms_are_applied_in_order_before_the_surrogate(problem, arguments):
    def square(images, keys):
        del keys
        return images**2

    def shift(images, keys):
        del keys
        return images + 0.3

    with_transforms = make(transforms=(square, shift), norm='l2')(*arguments)
    composed = jax.tree_util.Partial(lambda v, images: problem.apply(v, images**2 + 0.3), problem.variables)
    expected = make(norm='l2')(composed, *arguments[1:])
    np.testing.assert_allclose(with_transforms, expected, atol=1e-6, rtol=0)
    assert np.max(np.abs(expected - make(norm='l2')(*arguments))) > 1e-3


def test_the_loss_is_maximized_and_can_be_replaced(arguments):
    inside = jnp.clip(arguments[1], 0.1, 0.9)  # so that no step reaches the bounds of [0, 1]
    up = make(steps=1)(arguments[0], inside, *arguments[2:])
    down = make(steps=1, loss=lambda z, y: -losses.cross_entropy(z, y))(arguments[0], inside, *arguments[2:])
    np.testing.assert_allclose(down - inside, inside - up, atol=1e-6, rtol=0)

    def mean_loss(images):
        return float(jnp.mean(losses.cross_entropy(arguments[0](images), arguments[2])))

    assert mean_loss(down) < mean_loss(inside) < mean_loss(up)


def test_any_optax_transformation_is_a_direction(arguments):
    half = make(direction=optax.chain(steepest('linf'), optax.scale(0.5)), step_size=EPS)
    np.testing.assert_allclose(half(*arguments), BIM(*arguments), atol=1e-6, rtol=0)


@pytest.mark.parametrize('norm', ['linf', 'l2'])
@pytest.mark.parametrize('recipe', [pgd, mi_fgsm])
def test_the_type_of_the_images_is_kept(recipe, norm, problem, keys):
    def logits(variables, images):
        return problem.apply(variables, images.astype(jnp.float32))

    images, labels = jnp.asarray(problem.images, jnp.float16), problem.labels
    surrogate = jax.tree_util.Partial(logits, problem.variables)
    adversarial = recipe(eps=EPS, steps=2, norm=norm)(surrogate, images, labels, keys)
    assert adversarial.dtype == jnp.float16
    change = np.asarray(adversarial, np.float64) - np.asarray(images, np.float64)
    sizes = np.abs(change) if norm == 'linf' else np.sqrt(np.sum(change**2, (1, 2, 3)))
    assert np.max(sizes) <= EPS + 2e-3  # half precision has steps of 5e-4 below 1
    assert np.max(sizes) > EPS / 10


def test_a_gradient_estimate_determines_the_evaluations_and_their_number(problem, keys):
    seen = []

    def update(grad_fn, images, state, step_keys, step):
        del step
        seen.append(step_keys.shape)
        first = grad_fn(images, step_keys)
        return (first + grad_fn(images + 0.01 * state, step_keys)) / 2, state + 1.0

    two = GradientEstimate(init=lambda images: jnp.zeros(()), update=update, evaluations=lambda steps: 2 * steps)
    attack = make(steps=3, gradient=two)
    assert attack.gradient_evaluations == 6
    result = attack(problem.surrogate, problem.images, problem.labels, keys)
    assert seen == [problem.labels.shape]

    def gradient(x):
        return jax.grad(lambda x: jnp.sum(losses.cross_entropy(problem.surrogate(x), problem.labels)))(x)

    x = jnp.asarray(problem.images)
    for t in range(3):
        g = (gradient(x) + gradient(x + 0.01 * t)) / 2
        x = jnp.clip(jnp.clip(x + EPS / 2 * jnp.sign(g), problem.images - EPS, problem.images + EPS), 0, 1)
    np.testing.assert_allclose(result, x, atol=1e-6, rtol=0)


@jax.tree_util.register_pytree_node_class
class Alternating(SteppedSurrogate):
    """One set of variables on even steps and another on odd ones, with noise from the keys."""

    def __init__(self, apply, variables):
        self.apply, self.variables = apply, variables

    def tree_flatten(self):
        return (self.variables,), self.apply

    @classmethod
    def tree_unflatten(cls, apply, children):
        return cls(apply, *children)

    def at_step(self, images, keys, step):
        even, odd = self.variables
        variables = jax.tree.map(lambda a, b: jnp.where(step % 2 == 0, a, b), even, odd)
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
        return self.apply(variables, images + 1e-3 * noise)


def test_a_surrogate_that_varies_by_step_gets_the_step_and_new_keys(problem, keys):
    surrogate = Alternating(problem.apply, (problem.variables, problem.other_variables))
    result = make(steps=3)(surrogate, problem.images, problem.labels, keys)

    def fold(keys, number):
        return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)

    x = jnp.asarray(problem.images)
    for t in range(3):
        step_keys = fold(fold(keys, t + 1), 0)

        def loss(x, step_keys=step_keys, t=t):
            return jnp.sum(losses.cross_entropy(surrogate.at_step(x, step_keys, t), problem.labels))

        g = jax.grad(loss)(x)
        x = jnp.clip(jnp.clip(x + EPS / 2 * jnp.sign(g), problem.images - EPS, problem.images + EPS), 0, 1)
    np.testing.assert_allclose(result, x, atol=1e-6, rtol=0)
    only_even = make(steps=3)(problem.surrogate, problem.images, problem.labels, keys)
    assert np.abs(np.asarray(result) - only_even).max() > EPS / 2


def test_the_example_of_the_docstring_runs():
    failed, run = doctest.testmod(engine)
    assert run > 5
    assert not failed


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        ({'transforms': lambda images, keys: images}, 'transforms must be a tuple of functions'),
        ({'transforms': (1,)}, 'each of the transforms must be a function or an InputTransform, got 1'),
        ({'direction': [steepest('linf')]}, 'direction must be one optax transformation'),
    ],
)
def test_parts_of_the_wrong_type_are_refused(parts, message):
    with pytest.raises(InputError, match=message):
        make(**parts)

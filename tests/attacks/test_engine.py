import doctest
import functools
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attacks import ascent

import rfn_jax
from rfn_jax.attacks import Budget, GradientAttack, GradientEstimate, engine, pgd, steepest
from rfn_jax.core import losses
from rfn_jax.core.errors import InputError
from rfn_jax.models import Classifier

EPS = 8 / 255
close = functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=0)


def make(*, steps=2, norm='linf', **parts):
    options = {'direction': steepest(norm), 'step_size': EPS / 2} | parts
    return GradientAttack(name='test', limits=Budget(EPS, norm), steps=steps, **options)


BIM = make()


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        assert not train
        return nn.Dense(5, name='dense')(x.reshape(len(x), -1))


def test_functions_partials_and_classifiers_are_surrogates_and_checkpoints_share_a_compilation(problem):
    kernel = np.random.default_rng(0).normal(size=(108, 5)).astype(np.float32)

    def logits(kernel, images):
        return ((images - 0.4) / 0.3).reshape(len(images), -1) @ kernel

    def classifier(kernel):
        variables = {'params': {'dense': {'kernel': kernel, 'bias': np.zeros(5, np.float32)}}}
        return Classifier(variables, Dense(), 5, (0.4,), (0.3,))

    expected = BIM(lambda images: logits(kernel, images), *problem.arguments[1:])
    assert np.max(np.abs(expected - problem.images)) == pytest.approx(EPS, abs=1e-6)
    for surrogate in (functools.partial(jax.tree_util.Partial, logits), classifier):
        close(BIM(surrogate(kernel), *problem.arguments[1:]), expected)
        with jax.no_tracing():
            changed = BIM(surrogate(kernel[::-1].copy()), *problem.arguments[1:])
        assert np.any(changed != expected)


def test_one_key_stands_for_a_key_for_each_position(problem):
    attack, key = pgd(eps=EPS, steps=1), jax.random.key(3)
    one, each = (attack(*problem.arguments[:3], keys) for keys in (key, jax.random.split(key, 14)))
    np.testing.assert_array_equal(one, each)


def test_a_transform_gets_its_own_key_at_every_step_for_every_example(problem):
    seen = []

    def recorded(index):
        def transform(images, step_keys):
            jax.debug.callback(lambda data: seen.append((index, np.array(data))), jax.random.key_data(step_keys))
            return images

        return transform

    make(steps=3, transforms=(recorded(0), recorded(1)))(*problem.arguments)
    jax.effects_barrier()
    assert len(seen) == 2 * 3
    assert len({tuple(row) for _, data in seen for row in data.tolist()}) == 2 * 3 * 14
    expected = {
        (index, *jax.random.key_data(ascent.fold(problem.keys, t + 1, index))[0].tolist())
        for t in range(3)
        for index in range(2)
    }
    assert {(index, *data[0].tolist()) for index, data in seen} == expected


def test_the_loss_is_maximized_and_can_be_replaced(problem):
    surrogate, _, labels, keys = problem.arguments
    inside = jnp.clip(problem.images, 0.1, 0.9)  # so that no step reaches the bounds of [0, 1]
    up = make(steps=1)(surrogate, inside, labels, keys)
    down = make(steps=1, loss=lambda z, y: -losses.cross_entropy(z, y))(surrogate, inside, labels, keys)
    close(down - inside, inside - up)
    first, middle, last = (np.mean(losses.cross_entropy(surrogate(x), labels)) for x in (down, inside, up))
    assert first < middle < last


def test_the_type_of_the_images_is_kept(problem):
    images, (_, _, labels, keys) = problem.images.astype(np.float16), problem.arguments
    surrogate = jax.tree_util.Partial(lambda v, x: problem.apply(v, x.astype(jnp.float32)), problem.variables)
    adversarial = pgd(eps=EPS, steps=2)(surrogate, images, labels, keys)
    assert adversarial.dtype == jnp.float16
    lengths = ascent.lengths(np.asarray(adversarial, np.float64) - images, 'linf')
    assert np.max(lengths) <= EPS + 2e-3  # half precision has steps of 5e-4 below 1
    assert np.max(lengths) > EPS / 10


def test_a_gradient_estimate_determines_the_evaluations_and_their_number(problem):
    seen = []

    def update(grad_fn, images, state, step_keys, step):
        del step
        seen.append(step_keys.shape)
        first = grad_fn(images, step_keys)
        return (first + grad_fn(images + 0.01 * state, step_keys)) / 2, state + 1.0

    two = GradientEstimate(init=lambda images: jnp.zeros(()), update=update, evaluations=lambda steps: 2 * steps)
    attack = make(steps=3, gradient=two)
    assert attack.gradient_evaluations == 6
    found = attack(*problem.arguments)
    assert seen == [problem.labels.shape]

    @jax.jit
    @jax.grad
    def gradient(x):
        return jnp.sum(losses.cross_entropy(problem.surrogate(x), problem.labels))

    def mean_gradient(x, t):
        return gradient(x) + gradient(x + np.float32(0.01 * t))

    close(found, ascent.ascend(mean_gradient, problem.images, norm='linf', eps=EPS, alpha=EPS / 2, steps=3))


def test_the_example_of_the_docstring_runs():
    failed, run = doctest.testmod(engine)
    assert run > 5 > failed == 0


@pytest.mark.slow
def test_the_block_of_the_guide_runs(capsys):
    guide = (pathlib.Path(rfn_jax.__file__).parent / 'attacks' / 'README.md').read_text()
    (code,) = re.findall(r'```python\n(.*?)```', guide, re.DOTALL)
    names = {}
    exec(code, names)
    assert capsys.readouterr().out.split() == ['8', '2']
    assert 0 < np.abs(names['adversarial'] - names['images']).max() <= 8 / 255 + 1e-6


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        ({'transforms': lambda images, keys: images}, 'transforms must be a tuple of functions'),
        ({'direction': [steepest('linf')]}, 'direction must be one optax transformation'),
    ],
)
def test_parts_of_the_wrong_type_are_refused(parts, message):
    with pytest.raises(InputError, match=message):
        make(**parts)

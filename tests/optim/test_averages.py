import functools
import itertools

import family
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfn_jax import optim
from rfn_jax.core import errors, sharding

# A path of weights w_0, w_1, ..., whatever the gradient: w_{t+1} = w_t + STEPS[t].
START = {'w': np.array([1.0, -2.0, 0.5]), 'b': np.array(3.0)}
STEPS = [{'w': step[:3], 'b': step[3]} for step in np.random.default_rng(0).normal(size=(12, 4))]
WEIGHTS = list(itertools.accumulate(STEPS, functools.partial(jax.tree.map, np.add), initial=START))
both = pytest.mark.parametrize('tx', [optim.swa(), optim.ema()], ids=['swa', 'ema'])


def as_arrays(tree):
    return jax.tree.map(jnp.float32, tree)


def walk(tx):
    """The average after each update."""
    params, found = as_arrays(START), []
    state = tx.init(params)
    for step in STEPS:
        updates, state = tx.update(as_arrays(step), state, params, unknown=1.0)
        family.assert_close(updates, as_arrays(step), atol=0)  # unchanged
        params = optax.apply_updates(params, updates)
        found.append(optim.average_params(state))
    return found, state


def mean(trees):
    return jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *trees)


@pytest.mark.parametrize('start', [0, 1, 5, 20])
@pytest.mark.parametrize('every', [1, 3, 7])
def test_swa_is_the_mean_of_the_weights_that_its_docstring_states(start, every):
    found, state = walk(optim.swa(start, every=every))
    for t, average in enumerate(found, start=1):
        included = [WEIGHTS[i] for i in range(start + every, t + 1, every)]
        family.assert_close(average, mean(included) if included else WEIGHTS[t], message=f'after {t}')
    assert (int(state.count), int(state.average_count)) == (12, max(0, 12 - start) // every)


@pytest.mark.parametrize('decay', [0.0, 0.6, 0.99, 1.0])
def test_ema_follows_its_recursion(decay):
    found, state = walk(optim.ema(decay))
    average = START
    for w, now in zip(WEIGHTS[1:], found, strict=True):
        average = jax.tree.map(lambda a, w: decay * a + (1 - decay) * w, average, w)
        family.assert_close(now, average)
    assert (int(state.count), int(state.average_count)) == (12, 12)


def test_the_average_before_the_first_update_is_the_start():
    for tx in (optim.swa(), optim.swa(3), optim.ema()):
        family.assert_close(optim.average_params(tx.init(as_arrays(START))), as_arrays(START), atol=0)


@pytest.mark.parametrize('name', ['swa', 'ema'])
def test_the_average_of_bfloat16_weights_is_float32(name):
    tx = optim.swa() if name == 'swa' else optim.ema(0.99)
    params = {'w': jnp.full(3, 1.0, jnp.bfloat16)}
    state, expected = tx.init(params), 1.0
    for t in range(30):  # alternating steps that bfloat16 can represent, unlike their mean
        updates, state = tx.update({'w': jnp.full(3, (-1) ** t / 128, jnp.bfloat16)}, state, params)
        params = optax.apply_updates(params, updates)
        assert float(params['w'][0]) == 1 + (t % 2 == 0) / 128
        share = 1 / (t + 1) if name == 'swa' else 0.01
        expected += share * (float(params['w'][0]) - expected)
    average = optim.average_params(state)['w']
    assert average.dtype == jnp.float32
    np.testing.assert_allclose(average, np.full(3, expected), rtol=2e-7)


def test_an_average_is_found_at_any_depth():
    params = as_arrays(START)
    average = optim.ema(0.5)
    for tx in (
        average,
        optax.chain(optax.chain(optax.sgd(0.1), optax.chain(average)), optax.identity()),
        optax.named_chain(('descent', optax.adam(0.1)), ('average', average)),
        optax.inject_hyperparams(lambda rate: optax.chain(optax.sgd(rate), optim.ema(0.5)))(rate=0.1),
        optax.chain(
            optim.looksam(), optax.MultiSteps(optax.chain(optax.sgd(0.1), average), 2).gradient_transformation()
        ),
    ):
        family.assert_close(optim.average_params(tx.init(params)), params, atol=0)


@pytest.mark.parametrize(('parts', 'found'), [((optim.sam(), optax.ema(0.9)), 0), ((optim.swa(), optim.ema()), 2)])
def test_there_must_be_exactly_one_average(parts, found):
    with pytest.raises(errors.InputError, match=rf'must hold one average of swa\(\) or ema\(\), but holds {found}'):
        optim.average_params(optax.chain(*parts).init(as_arrays(START)))


@both
def test_the_average_lies_where_the_parameters_lie(tx):
    mesh = sharding.data_mesh()
    params = {'w': np.ones((3, 16), np.float32)}
    params = sharding.place(params, sharding.of_state(params, mesh, shard=True))
    state = tx.init(params)
    _, after = jax.jit(tx.update)(params, state, params)
    for average in (state.average, after.average):
        assert average['w'].sharding.is_equivalent_to(params['w'].sharding, 2)
    assert not params['w'].sharding.is_fully_replicated


def test_the_decay_may_be_injected():
    params = as_arrays(START)
    tx = optax.inject_hyperparams(optim.ema)(decay=0.5)
    _, state = tx.update(as_arrays(STEPS[0]), tx.init(params), params)
    family.assert_close(optim.average_params(state), mean(WEIGHTS[:2]))


@both
def test_missing_parameters(tx):
    with pytest.raises(ValueError, match=r'^(swa|ema) needs the parameters: call tx\.update'):
        tx.update(as_arrays(START), tx.init(as_arrays(START)))

import doctest
import importlib

import family
import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
import textbook

from rfn_jax import optim
from rfn_jax.core import errors, sharding

# A path of weights w_0, w_1, ..., whatever the gradient: w_{t+1} = w_t + STEPS[t].
START = {'w': np.array([1.0, -2.0, 0.5]), 'b': np.array(3.0)}
STEPS = [{'w': step[:3], 'b': step[3]} for step in np.random.default_rng(0).normal(size=(12, 4))]


def path():
    weights = [START]
    for step in STEPS:
        weights.append(jax.tree.map(np.add, weights[-1], step))
    return weights


def as_arrays(tree, dtype=jnp.float32):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def walk(tx, dtype=jnp.float32):
    """The average after each update."""
    params, found = as_arrays(START, dtype), []
    state = tx.init(params)
    for step in STEPS:
        updates, state = tx.update(as_arrays(step, dtype), state, params, unknown=1.0)
        family.assert_close(updates, as_arrays(step, dtype), atol=0)  # unchanged
        params = optax.apply_updates(params, updates)
        found.append(optim.average_params(state))
    return found, state


def mean(trees):
    return jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *trees)


@pytest.mark.parametrize('start', [0, 1, 5, 20])
@pytest.mark.parametrize('every', [1, 3, 7])
def test_swa_is_the_mean_of_the_weights_that_its_docstring_states(start, every):
    found, state = walk(optim.swa(start, every=every))
    weights = path()
    for t, average in enumerate(found, start=1):
        included = [weights[i] for i in range(start + every, t + 1, every)]
        family.assert_close(average, mean(included) if included else weights[t], message=f'after {t}')
    assert (int(state.count), int(state.average_count)) == (12, max(0, 12 - start) // every)


@pytest.mark.parametrize('decay', [0.0, 0.6, 0.99, 1.0])
def test_ema_follows_its_recursion(decay):
    found, state = walk(optim.ema(decay))
    average = START
    for w, now in zip(path()[1:], found, strict=True):
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


def test_wasam_is_the_mean_of_a_path_of_sam():
    problem = problems.convex()
    flat = textbook.Flat(problem)
    weights = textbook.descend(flat, textbook.sam(flat, rho=0.2), 20, learning_rate=0.1, momentum=0.9)
    tx = optax.chain(optim.sam(0.2), optax.sgd(0.1, momentum=0.9), optim.swa(8, every=2))
    gradient, _ = problem.jitted
    params = problem.params
    state = tx.init(params)
    for _ in range(20):
        updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
        params = optax.apply_updates(params, updates)
    # weights[i] is w_{i+1}: the mean is that of w_10, w_12, ..., w_20.
    np.testing.assert_allclose(flat.vector(optim.average_params(state)), weights[9::2].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(flat.vector(params), weights[-1], atol=1e-5)
    assert np.abs(weights[9::2].mean(axis=0) - weights[-1]).max() > 1e-2


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


def test_there_must_be_exactly_one_average():
    params = as_arrays(START)
    with pytest.raises(errors.InputError, match=r'must hold one average of swa\(\) or ema\(\), but holds 0'):
        optim.average_params(optax.chain(optim.sam(), optax.ema(0.9)).init(params))
    with pytest.raises(errors.InputError, match=r'must hold one average of swa\(\) or ema\(\), but holds 2'):
        optim.average_params(optax.chain(optim.swa(), optim.ema()).init(params))


@pytest.mark.parametrize('tx', [optim.swa(), optim.ema()], ids=['swa', 'ema'])
def test_donating_the_parameters_does_not_affect_the_average(tx):
    params = as_arrays(START)
    state = tx.init(params)
    donated = jax.jit(lambda params: jax.tree.map(lambda w: w + 1, params), donate_argnums=0)(params)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
    family.assert_close(optim.average_params(state), as_arrays(START), atol=0)
    step = jax.jit(
        lambda params, state: tx.update(jax.tree.map(jnp.ones_like, params), state, params), donate_argnums=0
    )
    _, state = step(donated, state)
    assert np.all(np.isfinite(optim.average_params(state)['w']))


@pytest.mark.parametrize('tx', [optim.swa(), optim.ema()], ids=['swa', 'ema'])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_init_takes_shapes_and_the_state_keeps_its_types(tx, dtype):
    params = as_arrays(START, dtype)
    made, shaped = tx.init(params), tx.init(jax.eval_shape(lambda: params))
    assert jax.eval_shape(lambda: made) == jax.eval_shape(lambda: shaped) == jax.eval_shape(tx.init, params)
    after = jax.eval_shape(lambda state: tx.update(params, state, params)[1], made)
    assert jax.tree.leaves(after) == jax.tree.leaves(jax.eval_shape(lambda: made))


@pytest.mark.parametrize('tx', [optim.swa(), optim.ema()], ids=['swa', 'ema'])
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
    family.assert_close(optim.average_params(state), mean(path()[:2]))


@pytest.mark.parametrize('tx', [optim.swa(), optim.ema()], ids=['swa', 'ema'])
def test_missing_parameters(tx):
    params = as_arrays(START)
    with pytest.raises(ValueError, match=r'^(swa|ema) needs the parameters: call tx\.update'):
        tx.update(params, tx.init(params))


@pytest.mark.parametrize(
    ('make', 'error', 'message'),
    [
        (lambda: optim.swa(-1), ValueError, 'start must be an integer of at least 0, got -1'),
        (lambda: optim.swa(1.5), TypeError, 'start must be an integer of at least 0, got 1.5'),
        (lambda: optim.swa(every=0), ValueError, 'every must be an integer of at least 1, got 0'),
        (lambda: optim.swa(every=True), TypeError, 'every must be an integer of at least 1, got True'),
        (lambda: optim.ema(1.1), ValueError, 'decay must be a finite number at least 0 and at most 1, got 1.1'),
        (lambda: optim.ema(float('nan')), ValueError, 'decay must be .*, got nan'),
        (lambda: optim.ema('0.9'), TypeError, "decay must be a finite number at least 0 and at most 1, got '0.9'"),
    ],
)
def test_errors_name_the_value(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_example_of_the_docstring_runs():
    results = doctest.testmod(importlib.import_module('rfn_jax.optim.averages'))
    assert results.attempted > 0
    assert results.failed == 0

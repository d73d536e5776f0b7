import dataclasses

import family
import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
import textbook

from rfn_jax import optim

RHO, RATE, MOMENTUM, DECAY = 0.4, 0.1, 0.9, 5e-4
SGD = {'learning_rate': RATE, 'momentum': MOMENTUM, 'weight_decay': DECAY}
PROBLEM = problems.convex
MASK = {'kernel': True, 'bias': False}


def chained(*parts):
    return optax.chain(optim.rfn_sam(RHO), *parts)


def descent(rate=RATE):
    return optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(rate, momentum=MOMENTUM))


def end(tx, steps, problem=None, **options):
    """The weights after some steps, as a vector."""
    problem = PROBLEM() if problem is None else problem
    return textbook.Flat(problem).vector(family.train(tx, problem, steps, **options)[-1][0])


def expected_end(steps, rho=RHO, *, problem=None, **changes):
    flat = textbook.Flat(PROBLEM() if problem is None else problem)
    return textbook.descend(flat, textbook.rule(flat, 'sam', rho=rho), steps, **SGD | changes)[-1]


def assert_close(a, b, atol=1e-6):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def test_fifty_steps_in_float64_equal_the_textbook():
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), PROBLEM().params)
        problem = dataclasses.replace(PROBLEM(), params=params)
        found = end(chained(descent()), 50, problem)
        assert_close(found, expected_end(50, problem=problem), atol=1e-7)  # the norm stays in float32
        assert {leaf.dtype.name for leaf in jax.tree.leaves(problem.jitted[0](params))} == {'float64'}


def test_several_steps_whose_number_may_be_injected_and_set():
    flat, gradient = textbook.Flat(PROBLEM()), PROBLEM().grad_fn
    tx, g = optax.inject_hyperparams(optim.rfn_sam, static_args='mask')(0.9, ascent_steps=1), gradient(PROBLEM().params)
    update = jax.jit(lambda state: tx.update(g, state, PROBLEM().params, grad_fn=gradient))
    for steps in (1, 2, 4):
        state = tx.init(PROBLEM().params)
        state.hyperparams['ascent_steps'] = jnp.asarray(steps)
        updates, state = update(state)
        w = flat.start
        for _ in range(steps):  # each follows the gradient at the current point
            w = w + 0.9 / steps * textbook.unit(flat.gradient(w))
        assert_close(flat.vector(updates), flat.gradient(w))
        assert float(state.inner_state.perturbation_norm) == pytest.approx(textbook.norm(w - flat.start), rel=1e-5)
        assert int(state.inner_state.ascent_count) == steps
    assert textbook.norm(w - flat.start) < 0.8995  # the path is curved


@pytest.mark.parametrize(('rho', 'skipped'), [(0.2, 0), (0.6, 1), (1.2, 1)])
def test_gradients_that_are_not_finite_during_the_ascent(rho, skipped):
    # Of the three gradients, all are finite, or only the first, or none.
    start, gradient = PROBLEM().params, PROBLEM().jitted[0]

    def diverging(params):
        """Finite at the start and NaN at every point 0.3 or more away from it."""
        away = sum(jnp.sum((params[name] - start[name]) ** 2) for name in start)
        return jax.tree.map(lambda g: jnp.where(away > 0.09, jnp.nan, g), gradient(params))

    _, updates, state = family.one_update(optim.rfn_sam(rho, ascent_steps=3), start, diverging)
    assert int(state.skipped_count) == skipped
    family.assert_finite(updates)
    assert all(np.all((leaf == 0) == bool(skipped)) for leaf in jax.tree.leaves(updates))


def test_inject_hyperparams_around_the_whole_chain():
    tx = optax.inject_hyperparams(lambda rho, rate: optax.chain(optim.rfn_sam(rho), descent(rate)))(rho=1.0, rate=1.0)
    rho, rate = (lambda t: 0.1 * (t + 1)), (lambda t: 0.1 / (t + 1))

    def change(t, state):
        return state._replace(hyperparams={'rho': jnp.float32(rho(t)), 'rate': jnp.float32(rate(t))})

    assert_close(end(tx, 6, change_state=change), expected_end(6, rho, learning_rate=rate))


@pytest.mark.parametrize(
    ('tx', 'whole'),
    [
        (chained(optax.MultiSteps(descent(), 4).gradient_transformation()), None),
        (optax.MultiSteps(chained(descent()), 4), True),
        (optax.MultiSteps(chained(descent()), 4), False),
    ],
    ids=['after it', 'around it, grad_fn of all micro-batches', 'around it'],
)
def test_multisteps_around_it_is_right_only_when_grad_fn_covers_all_micro_batches(tx, whole):
    flat, gradient = textbook.Flat(PROBLEM()), PROBLEM().jitted[0]
    parts = [jnp.arange(start, start + 4) for start in range(0, problems.B, 4)]

    @jax.jit
    def step(params, state, part):
        at = None if whole else part
        updates, state = tx.update(gradient(params, part), state, params, grad_fn=lambda w: gradient(w, at))
        return optax.apply_updates(params, updates), state

    params, state = PROBLEM().params, tx.init(PROBLEM().params)
    for t in range(12):
        params, state = step(params, state, parts[t % 4])

    def rule(t, w):
        g = [flat.gradient(w, part) for part in parts]
        if whole is None:  # m-sharpness
            return np.mean([flat.gradient(w + RHO * textbook.unit(g[i]), parts[i]) for i in range(4)], axis=0)
        return flat.gradient(w + RHO * textbook.unit(np.mean(g, axis=0)), None if whole else parts[-1])

    assert_close(flat.vector(params), textbook.descend(flat, rule, 3, **SGD)[-1])


def test_apply_if_finite_after_it_has_nothing_to_reject():
    tx, gradient = chained(optax.apply_if_finite(optax.sgd(0.1), 3)), PROBLEM().jitted[0]
    nan = jax.tree.map(lambda w: w * jnp.nan, PROBLEM().params)
    _, updates, state = family.one_update(tx, PROBLEM().params, lambda params: nan, grads=gradient(PROBLEM().params))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(updates))
    assert (int(state[1].total_notfinite), int(state[0].skipped_count)) == (0, 1)
    _, updates, _ = family.one_update(tx, PROBLEM().params, gradient, state=state)
    assert float(optax.tree.norm(updates)) > 0.01


def test_conditionally_transform_around_it_skips_the_ascent():
    tx, calls, problem = optax.conditionally_transform(optim.rfn_sam(RHO), lambda step: step % 2 == 1), [], PROBLEM()

    def grad_fn(params):
        jax.debug.callback(lambda: calls.append(None))
        return problem.grad_fn(params)

    g, state = problem.jitted[0](problem.params), tx.init(problem.params)
    update = jax.jit(lambda state: tx.update(g, state, problem.params, grad_fn=grad_fn))
    _, expected, _ = family.ascend('rfn_sam', problem, rho=RHO)
    for index in range(4):
        updates, state = update(state)
        family.assert_close(updates, expected if index % 2 else g)
    jax.effects_barrier()
    assert len(calls) == int(family.sam_state(state).ascent_count) == int(family.sam_state(state).count) == 2


def test_masked_weight_decay_behind_it():
    decay = optax.masked(optax.add_decayed_weights(0.1), MASK)
    tx = chained(decay, optax.sgd(RATE, momentum=MOMENTUM))
    assert_close(end(tx, 10), expected_end(10, weight_decay=0.1 * textbook.Flat(PROBLEM()).mask(MASK)))


def test_partition_behind_it_freezes():
    labels = jax.tree.map(lambda trained: 'train' if trained else 'freeze', MASK)
    tx = chained(optax.partition({'train': descent(), 'freeze': optax.set_to_zero()}, labels))
    flat = textbook.Flat(PROBLEM())
    trained, rule = flat.mask(MASK), textbook.rule(flat, 'sam', rho=RHO)
    sgd = SGD | {'weight_decay': DECAY * trained}
    assert_close(end(tx, 10), textbook.descend(flat, lambda t, w: trained * rule(t, w), 10, **sgd)[-1])


@pytest.mark.parametrize(
    'tx',
    [
        optax.contrib.schedule_free(chained(optax.sgd(RATE)), RATE, b1=0.9),
        chained(optax.contrib.schedule_free_sgd(RATE, b1=0.9)),
    ],
    ids=['around', 'after'],
)
def test_schedule_free_around_or_after_it(tx):
    # Defazio et al., 2024: the gradient is taken at y; z is the SGD sequence and x its mean.
    flat = textbook.Flat(PROBLEM())
    x = y = z = flat.start
    for t in range(10):
        z = z - RATE * textbook.rule(flat, 'sam', rho=RHO)(t, y)
        x = x + (z - x) / (t + 1)
        y = 0.9 * x + 0.1 * z
    assert_close(end(tx, 10), y)


def test_lookahead_around_it_fails_because_it_does_not_accept_grad_fn():
    tx = optax.lookahead(optax.chain(optim.rfn_sam(), descent()), 5, 0.5)
    params, gradient = optax.LookaheadParams.init_synced(PROBLEM().params), PROBLEM().jitted[0]
    with pytest.raises(TypeError, match='grad_fn'):
        tx.update(gradient(params.fast), tx.init(params), params, grad_fn=gradient)
    with pytest.raises(ValueError, match=r'rfn_sam needs the gradient function'):
        tx.update(gradient(params.fast), tx.init(params), params)


def test_flatten_around_it_fails_because_grad_fn_gets_flat_parameters():
    seen = []

    def gradient(params):
        seen.append(params)
        return PROBLEM().grad_fn(params)

    with pytest.raises((TypeError, IndexError)):
        family.one_update(optax.flatten(optim.rfn_sam()), PROBLEM().params, gradient, grads=PROBLEM().params)
    assert seen[0].ndim == 1


def test_a_clip_in_front_of_it_does_nothing_and_an_optimizer_ascends():
    clipped = end(optax.chain(optax.clip_by_global_norm(1e-3), optim.rfn_sam(RHO), descent()), 5)
    assert_close(clipped, expected_end(5))
    wrong = family.train(optax.chain(optax.sgd(0.1), optim.rfn_sam(0.05)), PROBLEM(), 5)[-1][0]
    assert float(PROBLEM().loss(wrong)) > float(PROBLEM().loss(PROBLEM().params))

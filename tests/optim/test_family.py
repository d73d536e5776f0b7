import dataclasses
import functools
import inspect

import family
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import problems
import pytest

from rfn_jax import optim
from rfn_jax.core import sharding

every = pytest.mark.parametrize('name', family.NAMES)
every_method = pytest.mark.parametrize('name', family.METHODS)  # without presets, for slow tests

CONVEX = problems.convex
ZEROS = {'kernel': np.zeros(8), 'bias': np.zeros(())}


def gradient(params, examples=None):
    return CONVEX().jitted[0](params, examples)


def update(tx, state, params, **changes):
    """One update of `convex`, not compiled."""
    return tx.update(gradient(params), state, params, **family.extra_args(CONVEX()) | changes)


def start(name, rho=family.RHO):
    """`compiled`, with a state whose radius is set."""
    tx, step, _ = family.compiled(name)
    return step, with_rho(tx.init(CONVEX().params), rho)


def with_rho(state, rho):
    return state._replace(hyperparams=state.hyperparams | {'rho': jnp.float32(rho)})


# ---------------------------------------------------------------------------------------------------------------------
# The table


@pytest.mark.parametrize('name', [name for name in family.NAMES if name.startswith('rfn_')])
def test_a_preset_is_its_method_with_a_larger_radius(name):
    preset, method = optim.MINIMIZERS[name], optim.MINIMIZERS[name.removeprefix('rfn_')]
    defaults, larger = (
        {key: parameter.default for key, parameter in inspect.signature(factory).parameters.items()}
        for factory in (method, preset)
    )
    assert larger == defaults | {'rho': 8 * defaults['rho']}
    point, updates, _ = family.ascend(name, CONVEX())
    other_point, other_updates, _ = family.ascend(name.removeprefix('rfn_'), CONVEX())
    family.assert_close((point, updates), (other_point, other_updates), atol=0)


# ---------------------------------------------------------------------------------------------------------------------
# As a transformation of optax


@every
def test_unknown_extra_arguments_are_ignored(name):
    params, tx = CONVEX().params, family.make(name, **family.quick(name))
    expected, _ = update(tx, tx.init(params), params)
    found, _ = update(tx, tx.init(params), params, value=1.0, key=jax.random.key(0), unknown='x')
    family.assert_close(found, expected, atol=0)


@every
def test_many_steps_need_a_single_trace(name):
    _, _, traces = family.compiled(name)
    step, state = start(name)
    params = CONVEX().params
    after = []
    for _ in range(4):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
        after.append(len(traces))
    assert after == [after[0]] * 4
    assert after[0] >= 1


@every
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float64'])
def test_updates_and_state_keep_their_types(name, dtype):
    with jax.enable_x64(dtype == 'float64'), jax.numpy_dtype_promotion('strict'):
        params = {'kernel': jnp.ones(8, dtype), 'bias': jnp.ones(2, dtype)}
        tx = family.make(name)
        before = jax.eval_shape(tx.init, params)

        def one_update(state):
            grad_fn = lambda params, examples=None: params  # noqa: E731
            return tx.update(params, state, params, grad_fn=grad_fn, losses_fn=lambda params: params['kernel'])

        updates, after = jax.eval_shape(one_update, before)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(updates)} == {dtype}
    # Norms and averages are in float32 or better, whatever the type of the parameters.
    for leaf in jax.tree.leaves(after):
        assert leaf.dtype == 'int32' or leaf.dtype == ('float64' if dtype == 'float64' and leaf.shape else 'float32')


@functools.cache
def convex_in_bfloat16(dtype):
    """`convex` with parameters that bfloat16 can represent, in `dtype`; cached, so that its gradient is compiled once."""
    params = jax.tree.map(lambda w: w.astype(jnp.bfloat16).astype(dtype), CONVEX().params)
    return dataclasses.replace(CONVEX(), params=params)


@every
def test_bfloat16_parameters_lose_no_further_precision(name):
    problem = convex_in_bfloat16(jnp.bfloat16)
    params = problem.params
    point, updates, state = family.ascend(name, problem)
    assert {leaf.dtype for leaf in jax.tree.leaves((point, updates))} == {jnp.dtype(jnp.bfloat16)}
    sam = family.sam_state(state)
    exact = family.distance(problem.jitted[0](params), ZEROS)
    assert float(sam.gradient_norm) == pytest.approx(exact, rel=1e-6)  # in bfloat16 it would be off by up to 4e-3
    # The norm of the actual change, after rounding.
    assert float(sam.perturbation_norm) == pytest.approx(family.distance(point, params), rel=1e-6)
    if family.method_of(name) in family.LENGTH_IS_RHO:
        assert 1e-5 < abs(float(sam.perturbation_norm) / family.RHO - 1) < 1e-2
    # Close to the result in float32, within the precision of bfloat16.
    _, expected, _ = family.ascend(name, convex_in_bfloat16(jnp.float32))
    family.assert_close(jax.tree.map(lambda x: x.astype(jnp.float32), updates), expected, atol=0.02)


def test_states_may_be_donated():
    params = CONVEX().params
    states = {name: family.make(name).init(params) for name in family.NAMES}
    states |= {'swa': optim.swa().init(params), 'ema': optim.ema().init(params)}
    jax.jit(lambda states: jax.tree.map(lambda leaf: leaf + 1, states), donate_argnums=0)(states)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(states))


@every
def test_a_zero_gradient_gives_zeros(name):
    step, state = start(name)
    for count in range(6):
        updates, state = step(CONVEX().params, state, at_params=0.0, at_perturbed=0.0)
        family.assert_close(updates, ZEROS, atol=0)
        family.assert_finite(state)
        sam = family.sam_state(state)
        assert (int(sam.count), int(sam.skipped_count), float(sam.gradient_norm)) == (count + 1, 0, 0)
        assert float(sam.perturbation_norm) == pytest.approx(family.RHO if name == 'random_sam' else 0, rel=1e-6)


@every
@pytest.mark.parametrize('form', ['pytree', 'function', 'name'])
def test_a_mask(name, form):
    problem = problems.normalized()
    mask = {
        'pytree': {'dense': False, 'norm': {'scale': True, 'bias': True}},
        'function': lambda params: {'dense': {'kernel': params['dense']['kernel'].ndim == 1}, 'norm': True},
        'name': 'only_normalization',
    }[form]
    everywhere, _, _ = family.ascend(name, problem)
    point, _, state = family.ascend(name, problem, mask=mask)
    family.assert_close(point['dense'], problem.params['dense'], atol=0)
    assert family.distance(everywhere['dense'], problem.params['dense']) > 0.01
    moved = family.distance(point['norm'], problem.params['norm'])
    # The dense layer does not count in the norm, so that the normalization gets the whole radius.
    assert moved > family.distance(everywhere['norm'], problem.params['norm']) + 0.01 or 'asam' in name
    if family.method_of(name) in family.LENGTH_IS_RHO:
        assert moved == pytest.approx(family.RHO, rel=1e-5)
    assert float(family.sam_state(state).perturbation_norm) == pytest.approx(moved, rel=1e-5)
    norm = problem.jitted[0](problem.params)['norm']
    expected = family.distance(norm, jax.tree.map(np.zeros_like, norm))
    assert float(family.sam_state(state).gradient_norm) == pytest.approx(expected, rel=1e-5)


@every
def test_init_takes_shapes(name):
    params = CONVEX().params
    tx = family.make(name, **family.quick(name))
    made, shaped = tx.init(params), tx.init(jax.eval_shape(lambda: params))
    assert jax.tree.structure(made) == jax.tree.structure(shaped)
    assert jax.eval_shape(lambda: made) == jax.eval_shape(lambda: shaped) == jax.eval_shape(tx.init, params)
    family.assert_close(made, shaped, atol=0)
    update(tx, shaped, params)


@every
def test_optax_map_params_finds_the_leaves_shaped_like_the_parameters(name):
    params = CONVEX().params
    tx = optax.chain(family.make(name), optax.sgd(0.1, momentum=0.9))
    marked = optax.tree.map_params(
        tx, lambda _: 'like params', tx.init(params), transform_non_params=lambda _: 'scalar'
    )
    like_params = jax.tree.leaves(marked).count('like params')
    own = 2 if family.method_of(name) in ('looksam', 'friendly_sam') else 0
    assert like_params == own + 2  # two more for the momentum
    scalars = len(optim.SamState._fields) + (family.method_of(name) == 'friendly_sam')
    assert jax.tree.leaves(marked).count('scalar') == scalars


# ---------------------------------------------------------------------------------------------------------------------
# What the state records


@every
def test_the_state_after_known_updates(name):
    step, state = start(name)
    params, ascents = CONVEX().params, 0
    for count in range(7):
        ascends = 'looksam' not in name or count % 5 == 0
        ascents += ascends
        g = gradient(params)
        updates, state = step(params, state)
        whole = (state, optax.sgd(0.1, momentum=0.9).init(params))  # as in a chain
        assert int(optax.tree.get(whole, 'ascent_count')) == ascents
        assert int(optax.tree.get(whole, 'skipped_count')) == 0
        assert int(family.sam_state(state).count) == count + 1
        assert float(optax.tree.get(whole, 'gradient_norm')) == pytest.approx(family.distance(g, ZEROS), rel=1e-5)
        perturbation_norm = float(optax.tree.get(whole, 'perturbation_norm'))
        if family.method_of(name) in family.LENGTH_IS_RHO:
            assert perturbation_norm == pytest.approx(family.RHO if ascends else 0, rel=1e-5)
        else:
            assert perturbation_norm > 0
        params = jax.tree.map(lambda w, u: w - 0.1 * u, params, updates)


@every
def test_the_perturbation_norm_is_the_distance_from_the_weights(name):
    for problem in (CONVEX(), problems.normalized()):
        point, _, state = family.ascend(name, problem)
        distance = family.distance(point, problem.params)
        assert float(family.sam_state(state).perturbation_norm) == pytest.approx(distance, rel=1e-5)


@every
def test_the_counts_saturate(name):
    full = jnp.int32(2**31 - 1)
    tx, params = family.make(name, **family.quick(name)), CONVEX().params
    state = optax.tree.set(tx.init(params), count=full, ascent_count=full, skipped_count=full)
    _, state = update(tx, state, params, grad_fn=lambda params, examples=None: jax.tree.map(jnp.zeros_like, params))
    _, state = update(
        tx, state, params, grad_fn=lambda params, examples=None: jax.tree.map(lambda w: w + jnp.nan, params)
    )
    sam = family.sam_state(state)
    assert (int(sam.count), int(sam.ascent_count), int(sam.skipped_count)) == (2**31 - 1,) * 3


# ---------------------------------------------------------------------------------------------------------------------
# Values that are not finite


@every
def test_a_gradient_that_is_not_finite_at_the_weights(name):
    params = CONVEX().params
    for bad in (np.nan, np.inf):
        for at_perturbed in (1.0, bad):
            step, state = start(name)
            _, state = step(params, state)
            before = state
            for index in range(5):  # looksam ascends at the last one
                updates, state = step(params, state, at_params=bad, at_perturbed=at_perturbed)
                family.assert_finite(updates)
                sam = family.sam_state(state)
                unaffected = name == 'random_sam' and at_perturbed == 1  # it ignores the gradient
                assert int(sam.skipped_count) == (0 if unaffected else index + 1)
                assert np.isfinite(sam.perturbation_norm)
                if at_perturbed is bad:
                    family.assert_close(updates, ZEROS, atol=0)
            # The arrays that looksam and friendly_sam keep are unchanged.
            family.assert_close(stored_arrays(state), stored_arrays(before), atol=0)
            updates, state = step(params, state)
            family.assert_finite((updates, state))


def stored_arrays(state):
    return [leaf for leaf in jax.tree.leaves(state.inner_state) if leaf.shape == (8,)]


@every
def test_if_only_the_given_gradient_is_not_finite_that_of_grad_fn_is_returned(name):
    params = CONVEX().params
    step, state = start(name)
    updates, _ = step(params, state, at_params=np.nan)
    if 'gsam' in name:  # it needs both
        family.assert_close(updates, ZEROS, atol=0)
    elif name != 'random_sam':
        family.assert_close(updates, gradient(params, family.kept_examples(name)))


@every
def test_a_gradient_that_is_not_finite_at_the_perturbed_point_gives_a_zero_update(name):
    params = CONVEX().params
    for bad in (np.nan, np.inf, -np.inf):
        step, state = start(name)
        updates, state = step(params, state, at_perturbed=bad)
        family.assert_close(updates, ZEROS, atol=0)
        sam = family.sam_state(state)
        assert (int(sam.skipped_count), int(sam.ascent_count), float(sam.perturbation_norm)) == (1, 1, 0)
        for _ in range(5):
            updates, state = step(params, state)
            family.assert_finite((updates, state))
            assert family.distance(updates, ZEROS) > 0.1
        assert int(family.sam_state(state).skipped_count) == 1


@every
def test_setting_an_invalid_radius_skips_the_perturbation(name):
    params = CONVEX().params
    step, state = start(name)
    expected = gradient(params, family.kept_examples(name))
    for index, bad in enumerate((np.nan, np.inf, -np.inf, -0.1)):
        _, fresh = start(name, bad)
        updates, fresh = step(params, fresh)
        family.assert_close(updates, expected, message=f'rho = {bad}')
        assert int(family.sam_state(fresh).skipped_count) == 1
        assert float(family.sam_state(fresh).perturbation_norm) == 0
        if 'looksam' not in name:
            _, state = step(params, with_rho(state, bad))
            assert int(family.sam_state(state).skipped_count) == index + 1
    _, good = start(name)
    reference, _ = step(params, good)
    updates, _ = step(params, with_rho(fresh._replace(inner_state=good.inner_state), family.RHO))
    family.assert_close(updates, reference, atol=0)
    assert family.distance(updates, expected) > 1e-3


# ---------------------------------------------------------------------------------------------------------------------
# Inside and before the wrappers of optax


@every
def test_inject_hyperparams_with_a_number_that_can_be_set(name):
    params = CONVEX().params
    for rho in (family.RHO, 0.05):
        step, state = start(name, rho)
        found, _ = step(params, state)
        tx = family.make(name, rho, **family.quick(name))
        expected, _ = update(tx, tx.init(params), params)
        family.assert_close(found, expected)
        assert float(state.hyperparams['rho']) == pytest.approx(rho)


@every
def test_inject_hyperparams_with_a_schedule(name):
    params, schedule = CONVEX().params, optax.linear_schedule(0.1, 0.5, 2)
    options = family.quick(name)
    tx, plain = family.injected(name, schedule, static=options, **options), family.make(name, schedule, **options)
    state, plain_state = tx.init(params), plain.init(params)
    for rho in (0.1, 0.3):
        found, state = update(tx, state, params)
        expected, plain_state = update(plain, plain_state, params)
        family.assert_close(found, expected)
        assert float(state.hyperparams['rho']) == pytest.approx(rho)
        if family.method_of(name) in family.LENGTH_IS_RHO:
            assert float(family.sam_state(state).perturbation_norm) == pytest.approx(rho, rel=1e-5)
        params = jax.tree.map(lambda w: w + 0.1, params)


@every
def test_apply_if_finite_after_it_has_nothing_to_reject(name):
    params = CONVEX().params
    tx = optax.chain(family.make(name, **family.quick(name)), optax.apply_if_finite(optax.sgd(0.1), 3))

    def poisoned(params, examples=None):
        return jax.tree.map(lambda g: g * jnp.nan, gradient(params, examples))

    updates, state = update(tx, tx.init(params), params, grad_fn=poisoned)
    family.assert_close(updates, ZEROS, atol=0)
    assert int(state[1].total_notfinite) == 0
    assert int(family.sam_state(state).skipped_count) == 1
    updates, state = update(tx, state, params)
    assert family.distance(updates, ZEROS) > 0.01


@every
def test_schedule_free_after_it(name):
    lr, b1 = 0.1, 0.9
    method = family.make(name, **family.quick(name))
    tx = optax.chain(method, optax.contrib.schedule_free_sgd(lr, b1=b1))
    params = x = y = z = CONVEX().params
    state, method_state = tx.init(params), method.init(y)
    for t in range(2):
        updates, state = update(tx, state, params)
        params = optax.apply_updates(params, updates)
        # Defazio et al., 2024: the gradient is taken at y; z is the sequence of SGD and x its mean.
        g, method_state = update(method, method_state, y)
        z = jax.tree.map(lambda z, g: z - lr * g, z, g)
        x = jax.tree.map(lambda x, z: x + (z - x) / (t + 1), x, z)  # noqa: B023
        y = jax.tree.map(lambda x, z: b1 * x + (1 - b1) * z, x, z)
        family.assert_close(params, y)


def micro_batches():
    x, y = CONVEX().batch
    return [(x, y), (0.5 * x[::-1] + 0.2, y), (-x, y), (x, -y)]


@every_method
def test_multisteps_after_it_averages_its_results_for_the_micro_batches(name):
    lr, k = 0.1, 2
    tx = optax.chain(family.make(name), optax.MultiSteps(optax.sgd(lr), k).gradient_transformation())

    @jax.jit
    def step(params, state, batch):
        problem = problems.Problem(params, batch, CONVEX().losses_on)
        updates, state = tx.update(
            problem.grad_fn(params), state, params, grad_fn=problem.grad_fn, losses_fn=problem.losses
        )
        return optax.apply_updates(params, updates), state

    params = w = CONVEX().params
    state = tx.init(params)
    method, method_state = start(name)
    gathered = []
    for index, batch in enumerate(micro_batches()):
        params, state = step(params, state, batch)
        g, method_state = method(w, method_state, batch=batch)
        gathered.append(g)
        if index % k == k - 1:
            w = jax.tree.map(lambda w, *g: w - lr * sum(g) / k, w, *gathered)
            gathered = []
        family.assert_close(params, w)
    assert int(family.sam_state(state).count) == len(micro_batches())


@every_method
def test_conditionally_transform_around_it_skips_the_ascent(name):
    tx, calls = optax.conditionally_transform(family.make(name), lambda step: step % 2 == 1), []

    def grad_fn(params, examples=None):
        jax.debug.callback(lambda: calls.append(None))
        return CONVEX().grad_fn(params, examples)

    @jax.jit
    def step(params, state):
        return tx.update(CONVEX().grad_fn(params), state, params, grad_fn=grad_fn, losses_fn=CONVEX().losses)

    params = CONVEX().params
    state = tx.init(params)
    method, method_state = start(name)
    for index in range(4):
        updates, state = step(params, state)
        expected = gradient(params)
        if index % 2 == 1:
            expected, method_state = method(params, method_state)
        family.assert_close(updates, expected)
        params = jax.tree.map(lambda w, g: w - 0.1 * g, params, expected)
    jax.effects_barrier()
    ascents = 1 if name == 'looksam' else 2
    assert len(calls) == int(family.sam_state(state).ascent_count) == ascents
    assert int(family.sam_state(state).count) == 2


# ---------------------------------------------------------------------------------------------------------------------
# On several devices, and on disk


def cut(tree, mesh):
    return sharding.place(tree, sharding.of_state(tree, mesh, shard=True))


@every_method
def test_sharded_parameters_and_batches_give_the_same_result_as_one_device(name):
    mesh = sharding.data_mesh()
    assert mesh.size == 8
    tx, step, _ = family.compiled(name)
    params, batch = CONVEX().params, CONVEX().batch
    state = tx.init(params)
    cut_params, cut_state, cut_batch = cut(params, mesh), cut(state, mesh), sharding.shard_batch(batch, mesh)
    for _ in range(3):
        updates, state = step(params, state, batch=batch)
        cut_updates, cut_state = step(cut_params, cut_state, batch=cut_batch)
        params, cut_params = (
            jax.tree.map(lambda w, u: w - 0.1 * u, *pair) for pair in ((params, updates), (cut_params, cut_updates))
        )
        family.assert_close((cut_params, cut_state), (params, state), atol=1e-5)


@every_method
def test_the_state_has_the_sharding_of_the_parameters(name):
    mesh = sharding.data_mesh()
    tx, step, _ = family.compiled(name)
    params = cut(CONVEX().params, mesh)
    wanted = params['kernel'].sharding
    assert not wanted.is_fully_replicated
    state = tx.init(params)
    updates, after = step(params, cut(state, mesh), batch=sharding.shard_batch(CONVEX().batch, mesh))
    for leaf in jax.tree.leaves((state, after, updates)):
        if leaf.shape == (8,):
            assert leaf.sharding.is_equivalent_to(wanted, 1)
        else:
            assert leaf.sharding.is_fully_replicated


def test_orbax_saves_and_restores_the_states_bit_by_bit(tmp_path):
    states = {}
    for name in family.NAMES:
        step, state = start(name)
        for _ in range(2):
            _, state = step(CONVEX().params, state)
        states[name] = jax.tree.map(np.asarray, (state.inner_state, optax.sgd(0.1, momentum=0.9).init(CONVEX().params)))
    template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), states)
    with ocp.CheckpointManager(tmp_path / 'states') as manager:
        manager.save(0, args=ocp.args.Composite(states=ocp.args.StandardSave(states)))
        manager.wait_until_finished()
        restored = manager.restore(0, args=ocp.args.Composite(states=ocp.args.StandardRestore(template))).states
    assert jax.tree.structure(restored) == jax.tree.structure(states)
    for old, new in zip(jax.tree.leaves(states), jax.tree.leaves(restored), strict=True):
        assert old.dtype == new.dtype
        np.testing.assert_array_equal(old, new)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(restored['looksam'][0].orthogonal))


# ---------------------------------------------------------------------------------------------------------------------
# Errors


@every
def test_errors_of_update_name_the_method(name):
    params, tx, method = CONVEX().params, family.make(name), family.method_of(name)
    with pytest.raises(ValueError, match=rf'^{method} needs the parameters: call tx\.update'):
        tx.update(gradient(params), tx.init(params), grad_fn=gradient)
    with pytest.raises(ValueError, match=rf'^{method} needs the gradient function: call tx\.update'):
        tx.update(gradient(params), tx.init(params), params)
    for returned in (None, (1.0, params), {'kernel': params['kernel']}):
        with pytest.raises(ValueError, match=r'grad_fn must return a gradient with the structure of params'):
            update(tx, tx.init(params), params, grad_fn=lambda params, examples=None: returned)  # noqa: B023
    transposed = {'kernel': jnp.ones((8, 1)), 'bias': jnp.ones(())}
    with pytest.raises(
        ValueError, match=r'gradient with the shapes of params, \[\(\), \(8,\)\], got \[\(\), \(8, 1\)\]'
    ):
        update(tx, tx.init(params), params, grad_fn=lambda params, examples=None: transposed)
    nothing = family.make(name, mask='only_normalization')
    with pytest.raises(ValueError, match='mask only_normalization selects none of the parameters'):
        update(nothing, nothing.init(params), params)


@every
@pytest.mark.parametrize('wrapper', ['masked', 'partition'])
def test_inside_a_wrapper_that_inserts_masked_nodes(name, wrapper):
    tx, params, method = family.make(name), CONVEX().params, family.method_of(name)
    if wrapper == 'masked':
        tx = optax.masked(tx, {'kernel': True, 'bias': False})
    else:
        tx = optax.partition({'a': tx, 'b': optax.sgd(0.1)}, {'kernel': 'a', 'bias': 'b'})
    with pytest.raises(
        TypeError, match=rf'^{method} cannot run inside optax\.masked .* put {method}\(mask=\.\.\.\) first'
    ):
        update(tx, tx.init(params), params)


@every
def test_errors_of_construction_name_the_value(name):
    factory = optim.MINIMIZERS[name]
    for rho in (-0.1, float('nan'), float('inf')):
        with pytest.raises(ValueError, match=f'rho must be a finite number at least 0, got {rho}'):
            factory(rho)
    for rho in ('0.4', None, True):
        with pytest.raises(
            TypeError, match=rf'rho must be a finite number at least 0 or a schedule \(.*\), got {rho!r}'
        ):
            factory(rho)
    with pytest.raises(ValueError, match="unknown mask 'no_bias'; did you mean 'no_biases'"):
        factory(mask='no_bias')
    with pytest.raises(TypeError, match=r'mask must be a name .* got .*kernel.: 1'):
        factory(mask={'kernel': 1, 'bias': 0})


NUMBERS = {
    'ascent_steps': (['sam'], [0, -1], [1.5, True, '2']),
    'eta': (['asam'], [-0.01, float('nan')], ['0.01', None, True]),
    'alpha': (['gsam', 'looksam'], [-0.1, float('inf')], ['0.4', None, True]),
    'k': (['looksam'], [0, -5], [2.5, True, '5']),
    'beta': (['esam'], [0, -0.5, 1.01, float('nan')], ['0.5', None, True]),
    'gamma': (['esam'], [0, -0.5, 1.01, float('nan')], ['0.5', None, True]),
    'sigma': (['friendly_sam'], [-1, float('nan')], ['1', None, True]),
    'decay': (['friendly_sam'], [-0.1, 1.1, float('nan')], ['1', None, True]),
    'seed': (['esam', 'random_sam'], [-1, 2**31], [0.5, True, '0']),
}


@pytest.mark.parametrize('option', NUMBERS)
def test_errors_of_other_options_name_the_value(option):
    methods, values, types = NUMBERS[option]
    for name in family.NAMES:
        if name.removeprefix('rfn_') in methods:
            for raised, wrong in ((ValueError, values), (TypeError, types)):
                for value in wrong:
                    with pytest.raises(raised, match=rf'^{option} must be .*, got .*{str(value).strip("-")}'):
                        optim.MINIMIZERS[name](**{option: value})
        else:
            assert option not in inspect.signature(optim.MINIMIZERS[name]).parameters


def test_every_option_has_error_tests():
    options = {option for name in family.NAMES for option in inspect.signature(optim.MINIMIZERS[name]).parameters}
    assert options == NUMBERS.keys() | {'rho', 'mask', 'norm'}

import dataclasses
import functools
import inspect
import re

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
from rfn_jax.optim import arguments

every = pytest.mark.parametrize('name', family.METHODS)
every_name = pytest.mark.parametrize(
    'name', family.NAMES
)  # with presets, for what does not follow from their definition
every_state = pytest.mark.parametrize('name', [*family.METHODS, *family.AVERAGES])

CONVEX = problems.convex()
PARAMS = CONVEX.params
ZEROS = {'kernel': np.zeros(8), 'bias': np.zeros(())}
gradient = CONVEX.jitted[0]


def update(tx, state, params=PARAMS, **changes):
    """One update of `convex`, not compiled."""
    return tx.update(gradient(params), state, params, **family.extra_args(CONVEX) | changes)


def start(name, rho=family.RHO):
    """`compiled`, with a state whose radius is set."""
    tx, step, _ = family.compiled(name)
    return step, with_rho(tx.init(PARAMS), rho)


def with_rho(state, rho):
    return state._replace(hyperparams=state.hyperparams | {'rho': jnp.float32(rho)})


OTHER_OPTIONS = {'ascent_steps': 2, 'norm': 'layer', 'eta': 0.2, 'alpha': 0.9, 'k': 1, 'beta': 0.8, 'gamma': 0.25}
OTHER_OPTIONS |= {'seed': 7, 'sigma': 0.3, 'decay': 0.2, 'mask': {'kernel': True, 'bias': False}}


@pytest.mark.parametrize('name', [name for name in family.NAMES if name.startswith('rfn_')])
def test_a_preset_is_its_method_with_a_larger_radius(name):
    method = name.removeprefix('rfn_')
    larger, defaults = (
        {key: parameter.default for key, parameter in inspect.signature(optim.MINIMIZERS[n]).parameters.items()}
        for n in (name, method)
    )
    assert larger == defaults | {'rho': 8 * defaults['rho']}
    others = {option: OTHER_OPTIONS[option] for option in defaults if option != 'rho'}
    for options in ({}, others):
        (_, found, state), (_, expected, expected_state) = (family.ascend(n, CONVEX, **options) for n in (name, method))
        family.assert_close((found, state), (expected, expected_state), atol=0)


@every_state
@pytest.mark.parametrize('dtypes', ['float32', 'bfloat16', 'float64', 'bfloat16 float32'])
def test_updates_and_state_keep_their_types(name, dtypes):
    kernel, bias = (dtypes.split() * 2)[:2]
    with jax.enable_x64(kernel == 'float64'), jax.numpy_dtype_promotion('strict'):
        params = {'kernel': jnp.ones(8, kernel), 'bias': jnp.ones(2, bias)}
        tx = family.make(name)
        before = jax.eval_shape(tx.init, params)

        def one_update(state):
            grad_fn = lambda params, examples=None: params  # noqa: E731
            return tx.update(params, state, params, grad_fn=grad_fn, losses_fn=lambda params: params['kernel'])

        updates, after = jax.eval_shape(one_update, before)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)
    assert (updates['kernel'].dtype, updates['bias'].dtype) == (kernel, bias)
    # Norms and averages are in float32 or better, whatever the type of the parameters.
    for leaf in jax.tree.leaves(after):
        assert leaf.dtype == 'int32' or leaf.dtype == ('float64' if kernel == 'float64' and leaf.shape else 'float32')


@functools.cache
def convex_in_bfloat16(dtype):
    """`convex` with parameters that bfloat16 can represent, in `dtype`; cached, so that its gradient is compiled once."""
    params = jax.tree.map(lambda w: w.astype(jnp.bfloat16).astype(dtype), PARAMS)
    return dataclasses.replace(CONVEX, params=params)


@every
def test_bfloat16_parameters_lose_no_further_precision(name):
    problem = convex_in_bfloat16(jnp.bfloat16)
    point, updates, state = family.ascend(name, problem)
    assert {leaf.dtype for leaf in jax.tree.leaves((point, updates))} == {jnp.dtype(jnp.bfloat16)}
    sam = family.sam_state(state)
    exact = family.distance(problem.jitted[0](problem.params), ZEROS)
    assert float(sam.gradient_norm) == pytest.approx(exact, rel=1e-6)  # in bfloat16 it would be off by up to 4e-3
    # The norm of the actual change, after rounding.
    assert float(sam.perturbation_norm) == pytest.approx(family.distance(point, problem.params), rel=1e-6)
    if name in family.LENGTH_IS_RHO:
        assert 1e-5 < abs(float(sam.perturbation_norm) / family.RHO - 1) < 1e-2
    # Close to the result in float32, within the precision of bfloat16.
    _, expected, _ = family.ascend(name, convex_in_bfloat16(jnp.float32))
    family.assert_close(jax.tree.map(lambda x: x.astype(jnp.float32), updates), expected, atol=0.02)


def test_states_may_be_donated():
    states = {name: family.make(name).init(PARAMS) for name in (*family.METHODS, *family.AVERAGES)}
    jax.jit(lambda states: jax.tree.map(lambda leaf: leaf + 1, states), donate_argnums=0)(states)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(states))


@every
def test_a_zero_gradient_gives_zeros(name):
    step, state = start(name)
    for count in range(6):
        updates, state = step(state, at_params=0.0, at_perturbed=0.0)
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
    everywhere, _, state = family.ascend(name, problem)
    distance = family.distance(everywhere, problem.params)
    assert float(family.sam_state(state).perturbation_norm) == pytest.approx(distance, rel=1e-5)
    point, _, state = family.ascend(name, problem, mask=mask)
    family.assert_close(point['dense'], problem.params['dense'], atol=0)
    assert family.distance(everywhere['dense'], problem.params['dense']) > 0.01
    moved = family.distance(point['norm'], problem.params['norm'])
    # The dense layer does not count in the norm, so that the normalization gets the whole radius.
    assert moved > family.distance(everywhere['norm'], problem.params['norm']) + 0.01 or name == 'asam'
    if name in family.LENGTH_IS_RHO:
        assert moved == pytest.approx(family.RHO, rel=1e-5)
    assert float(family.sam_state(state).perturbation_norm) == pytest.approx(moved, rel=1e-5)
    norm = problem.jitted[0](problem.params)['norm']
    expected = family.distance(norm, jax.tree.map(np.zeros_like, norm))
    assert float(family.sam_state(state).gradient_norm) == pytest.approx(expected, rel=1e-5)


@every_state
def test_init_takes_shapes(name):
    tx = family.make(name, **family.quick(name))
    made, shaped = tx.init(PARAMS), tx.init(jax.eval_shape(lambda: PARAMS))
    assert jax.tree.structure(made) == jax.tree.structure(shaped)
    assert jax.eval_shape(lambda: made) == jax.eval_shape(lambda: shaped) == jax.eval_shape(tx.init, PARAMS)
    if name in family.METHODS:  # averages start from the parameters
        family.assert_close(made, shaped, atol=0)
    update(tx, shaped)


@every
def test_optax_map_params_finds_the_leaves_shaped_like_the_parameters(name):
    tx = optax.chain(family.make(name), optax.sgd(0.1, momentum=0.9))
    marked = optax.tree.map_params(tx, lambda _: 'p', tx.init(PARAMS), transform_non_params=lambda _: 'scalar')
    own = 2 if name in ('looksam', 'friendly_sam') else 0
    assert jax.tree.leaves(marked).count('p') == own + 2  # two more for the momentum
    assert jax.tree.leaves(marked).count('scalar') == len(optim.SamState._fields) + (name == 'friendly_sam')


@every
def test_the_state_after_known_updates_that_are_traced_once(name):
    _, _, traces = family.compiled(name)
    step, state = start(name)
    step(state)
    traced, params, ascents = len(traces), PARAMS, 0
    for count in range(7):
        ascends = name != 'looksam' or count % 5 == 0
        ascents += ascends
        g = gradient(params)
        updates, state = step(state, params)
        whole = (state, optax.sgd(0.1, momentum=0.9).init(params))  # as in a chain
        assert int(optax.tree.get(whole, 'ascent_count')) == ascents
        assert int(optax.tree.get(whole, 'skipped_count')) == 0
        assert int(family.sam_state(state).count) == count + 1
        assert float(optax.tree.get(whole, 'gradient_norm')) == pytest.approx(family.distance(g, ZEROS), rel=1e-5)
        perturbation_norm = float(optax.tree.get(whole, 'perturbation_norm'))
        if name in family.LENGTH_IS_RHO:
            assert perturbation_norm == pytest.approx(family.RHO if ascends else 0, rel=1e-5)
        else:
            assert perturbation_norm > 0
        params = jax.tree.map(lambda w, u: w - 0.1 * u, params, updates)
    assert len(traces) == traced >= 1


@every
def test_the_counts_saturate(name):
    full, tx = jnp.int32(2**31 - 1), family.make(name, **family.quick(name))
    state = optax.tree.set(tx.init(PARAMS), count=full, ascent_count=full, skipped_count=full)
    for value in (0.0, jnp.nan):
        constant = jax.tree.map(lambda w: jnp.full_like(w, value), PARAMS)  # noqa: B023
        _, state = update(tx, state, grad_fn=lambda params, examples=None: constant)  # noqa: B023
    sam = family.sam_state(state)
    assert (int(sam.count), int(sam.ascent_count), int(sam.skipped_count)) == (2**31 - 1,) * 3


@every
@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_at_the_weights(name, bad):
    for at_perturbed in (1.0, bad):
        step, state = start(name)
        _, state = step(state)
        before = state
        for index in range(5):  # looksam ascends at the last one
            updates, state = step(state, at_params=bad, at_perturbed=at_perturbed)
            family.assert_finite(updates)
            sam = family.sam_state(state)
            unaffected = name == 'random_sam' and at_perturbed == 1  # it ignores the gradient
            assert int(sam.skipped_count) == (0 if unaffected else index + 1)
            assert np.isfinite(sam.perturbation_norm)
            if at_perturbed is bad or name == 'gsam':  # which needs both gradients
                family.assert_close(updates, ZEROS, atol=0)
        if at_perturbed == 1 and name not in ('gsam', 'random_sam'):  # the one of grad_fn is returned
            family.assert_close(updates, gradient(PARAMS, family.kept_examples(name)))
        # The arrays that looksam and friendly_sam keep are unchanged.
        family.assert_close(stored_arrays(state), stored_arrays(before), atol=0)
        family.assert_finite(step(state))


def stored_arrays(state):
    return [leaf for leaf in jax.tree.leaves(state.inner_state) if leaf.shape == (8,)]


@every
@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_at_the_perturbed_point_gives_a_zero_update(name, bad):
    step, state = start(name)
    updates, state = step(state, at_perturbed=bad)
    family.assert_close(updates, ZEROS, atol=0)
    sam = family.sam_state(state)
    assert (int(sam.skipped_count), int(sam.ascent_count), float(sam.perturbation_norm)) == (1, 1, 0)
    for _ in range(5):
        updates, state = step(state)
        family.assert_finite((updates, state))
        assert family.distance(updates, ZEROS) > 0.1
    assert int(family.sam_state(state).skipped_count) == 1


@every
def test_setting_an_invalid_radius_skips_the_perturbation(name):
    step, state = start(name)
    expected = gradient(PARAMS, family.kept_examples(name))
    for index, bad in enumerate((np.nan, np.inf, -np.inf, -0.1)):
        updates, fresh = step(start(name, bad)[1])
        family.assert_close(updates, expected, message=f'rho = {bad}')
        assert int(family.sam_state(fresh).skipped_count) == 1
        assert float(family.sam_state(fresh).perturbation_norm) == 0
        if name != 'looksam':
            _, state = step(with_rho(state, bad))
            assert int(family.sam_state(state).skipped_count) == index + 1
    _, good = start(name)
    reference, _ = step(good)
    updates, _ = step(with_rho(fresh._replace(inner_state=good.inner_state), family.RHO))
    family.assert_close(updates, reference, atol=0)
    assert family.distance(updates, expected) > 1e-3


@every
def test_inject_hyperparams_with_a_number_that_can_be_set(name):
    for rho in (family.RHO, 0.05):
        step, state = start(name, rho)
        found, _ = step(state)
        _, expected, _ = family.ascend(name, CONVEX, rho=rho)
        family.assert_close(found, expected)
        assert float(state.hyperparams['rho']) == pytest.approx(rho)


@every
def test_inject_hyperparams_with_a_schedule(name):
    params, schedule, options = PARAMS, optax.linear_schedule(0.1, 0.5, 2), family.quick(name)
    tx, plain = family.injected(name, schedule, static=options, **options), family.make(name, schedule, **options)
    state, plain_state = tx.init(params), plain.init(params)
    for rho in (0.1, 0.3):
        found, state = update(tx, state, params)
        expected, plain_state = update(plain, plain_state, params)
        family.assert_close(found, expected)
        assert float(state.hyperparams['rho']) == pytest.approx(rho)
        if name in family.LENGTH_IS_RHO:
            assert float(family.sam_state(state).perturbation_norm) == pytest.approx(rho, rel=1e-5)
        params = jax.tree.map(lambda w: w + 0.1, params)


def cut(tree, mesh):
    return sharding.place(tree, sharding.of_state(tree, mesh, shard=True))


@every
def test_sharded_parameters_and_batches_give_the_same_result_as_one_device_and_stay_sharded(name):
    mesh = sharding.data_mesh()
    tx, step, _ = family.compiled(name)
    params, state = PARAMS, tx.init(PARAMS)
    cut_params, cut_state, cut_batch = cut(params, mesh), cut(state, mesh), sharding.shard_batch(CONVEX.batch, mesh)
    wanted, made = cut_params['kernel'].sharding, tx.init(cut_params)
    assert (mesh.size, wanted.is_fully_replicated) == (8, False)
    for _ in range(3):
        updates, state = step(state, params)
        cut_updates, cut_state = step(cut_state, cut_params, batch=cut_batch)
        for leaf in jax.tree.leaves((made, cut_state, cut_updates)):
            assert leaf.sharding.is_equivalent_to(wanted, 1) if leaf.shape else leaf.sharding.is_fully_replicated
        params, cut_params = (
            jax.tree.map(lambda w, u: w - 0.1 * u, *pair) for pair in ((params, updates), (cut_params, cut_updates))
        )
        family.assert_close((cut_params, cut_state), (params, state), atol=1e-5)


def test_orbax_saves_and_restores_the_states_bit_by_bit(tmp_path):
    states = {name: step(step(state)[1])[1].inner_state for name in family.METHODS for step, state in [start(name)]}
    states = jax.tree.map(np.asarray, states)
    template = jax.tree.map(np.zeros_like, states)
    with ocp.CheckpointManager(tmp_path / 'states') as manager:
        manager.save(0, args=ocp.args.Composite(states=ocp.args.StandardSave(states)))
        manager.wait_until_finished()
        restored = manager.restore(0, args=ocp.args.Composite(states=ocp.args.StandardRestore(template))).states
    assert jax.tree.map(lambda leaf: leaf.dtype, restored) == jax.tree.map(lambda leaf: leaf.dtype, states)
    jax.tree.map(np.testing.assert_array_equal, restored, states)
    assert np.any(restored['looksam'].orthogonal['kernel'] != 0)


def name_in_messages(name):
    """Messages of presets name the method, except those of `rfn_sam`."""
    return name if name == 'rfn_sam' else name.removeprefix('rfn_')


@every_name
def test_errors_of_update_name_the_method(name):
    tx, method = family.make(name), name_in_messages(name)
    with pytest.raises(ValueError, match=rf'^{method} needs the parameters: call tx\.update'):
        tx.update(PARAMS, tx.init(PARAMS), grad_fn=gradient)
    with pytest.raises(ValueError, match=rf'^{method} needs the gradient function: call tx\.update'):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    for returned, message in (
        (None, 'structure of params'),
        ((1.0, PARAMS), 'structure of params'),
        ({'kernel': PARAMS['kernel']}, 'structure of params'),
        (PARAMS | {'kernel': jnp.ones((8, 1))}, r'shapes of params, \[\(\), \(8,\)\], got \[\(\), \(8, 1\)\]'),
    ):
        with pytest.raises(ValueError, match=f'grad_fn must return a gradient with the {message}'):
            update(tx, tx.init(PARAMS), grad_fn=lambda params, examples=None: returned)  # noqa: B023
    nothing = family.make(name, mask='only_normalization')
    with pytest.raises(ValueError, match='mask only_normalization selects none of the parameters'):
        update(nothing, nothing.init(PARAMS))
    wrapped = optax.masked(tx, {'kernel': True, 'bias': False})
    parts = optax.partition({'a': tx, 'b': optax.sgd(0.1)}, {'kernel': 'a', 'bias': 'b'})
    message = rf'^{method} cannot run inside optax\.masked or optax\.partition.* put {method}\(mask=\.\.\.\) first'
    for inserts_masked_nodes in (wrapped, parts):
        with pytest.raises(TypeError, match=message):
            update(inserts_masked_nodes, inserts_masked_nodes.init(PARAMS))


@every_name
def test_errors_of_construction_name_the_value(name):
    factory, allowed = optim.MINIMIZERS[name], 'rho must be a finite number at least 0'
    for rho in (-0.1, float('nan'), float('inf')):
        with pytest.raises(ValueError, match=f'{allowed}, got {rho}'):
            factory(rho)
    for rho in ('0.4', None, True):
        schedule = r'a schedule \(a function of the number of updates\)'
        with pytest.raises(TypeError, match=rf'{allowed} or {schedule}, got {rho!r}'):
            factory(rho)
    with pytest.raises(ValueError, match="unknown mask 'no_bias'; did you mean 'no_biases'"):
        factory(mask='no_bias')
    with pytest.raises(TypeError, match=r'mask must be a name .* got .*kernel.: 1'):
        factory(mask={'kernel': 1, 'bias': 0})


FACTORIES = {name: optim.MINIMIZERS[name] for name in family.NAMES} | family.AVERAGES
NUMBER, INTEGER, NAN = 'a finite number at least 0', 'an integer of at least', float('nan')
FRACTION = 'a finite number above 0 and at most 1'
# The methods that have an option, what it may be, and values that it may not be.
OPTIONS = {
    'ascent_steps': (['sam'], f'{INTEGER} 1', [0, -1], [1.5, True, '2']),
    'eta': (['asam'], NUMBER, [-0.01, NAN], ['0.01', None, True]),
    'alpha': (['gsam', 'looksam'], NUMBER, [-0.1, float('inf')], ['0.4', None, True]),
    'k': (['looksam'], f'{INTEGER} 1', [0, -5], [2.5, True, '5']),
    'beta': (['esam'], FRACTION, [0, -0.5, 1.01, NAN], ['0.5', None, True]),
    'gamma': (['esam'], FRACTION, [0, -0.5, 1.01, NAN], ['0.5', None, True]),
    'sigma': (['friendly_sam'], NUMBER, [-1, NAN], ['1', None, True]),
    'decay': (['friendly_sam', 'ema'], f'{NUMBER} and at most 1', [-0.1, 1.1, NAN], ['1', None, True, [1], 1j]),
    'seed': (['esam', 'random_sam'], 'an integer from 0 to 2147483647', [-1, 2**31], [0.5, True, '0', np.array(0.5)]),
    'start': (['swa'], f'{INTEGER} 0', [-1], [1.5]),
    'every': (['swa'], f'{INTEGER} 1', [0], [True]),
}


@pytest.mark.parametrize('option', OPTIONS)
def test_errors_of_other_options_name_the_value(option):
    methods, allowed, values, types = OPTIONS[option]
    for name, factory in FACTORIES.items():
        if name.removeprefix('rfn_') in methods:
            for raised, wrong in ((ValueError, values), (TypeError, types)):
                for value in wrong:
                    with pytest.raises(raised, match=re.escape(f'{option} must be {allowed}, got {value!r}')):
                        factory(**{option: value})
        else:
            assert option not in inspect.signature(factory).parameters


def test_every_option_has_error_tests():
    with pytest.raises(ValueError, match="unknown norm 'globl'; did you mean 'global'"):
        optim.sam(norm='globl')
    options = {option for factory in FACTORIES.values() for option in inspect.signature(factory).parameters}
    assert options == OPTIONS.keys() | {'rho', 'mask', 'norm'}


def test_numbers_arrays_and_schedules_pass_the_checks():
    for value in (0, 1, 0.5, np.float32(0.5), np.int64(1), jnp.float32(-3), jnp.asarray(NAN)):
        arguments.check_number('x', value, at_least=0, at_most=1)
        arguments.check_rho(value)
    for value in (1, np.int64(3), jnp.int32(0)):
        arguments.check_integer('k', value, at_least=1)
        arguments.check_seed(value)
    arguments.check_rho(optax.constant_schedule(0.1))
    arguments.check_rho(lambda count: 0.1)

import copy
import itertools
import math
import re

import family
import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
import textbook

from rfn_jax import optim
from rfn_jax.core import errors
from rfn_jax.optim import minimizers, schedules


def trained(tx, steps=3):
    params, _, state = family.train(tx, problems.convex(), steps, compiled=False)[-1]
    return params, state


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_an_optimizer_equals_the_chain_of_its_components_alone_and_in_a_chain():
    minimizer, descent = optim.rfn_sam(0.3), optim.momentum_sgd(0.05, momentum=0.9, weight_decay=5e-4)
    expected, _ = trained(optax.chain(minimizer, descent))
    alone, state = trained(optim.Optimizer(minimizer, descent))
    chained, _ = trained(optax.chain(optim.Optimizer(minimizer, descent), optax.identity()))
    assert_equal((alone, chained), (expected, expected))
    assert int(state.minimizer.ascent_count) == 3
    assert optim.diagnostics(state)['perturbation_norm'] > 0


def test_components_without_extra_arguments_are_accepted():
    assert_equal(trained(optim.Optimizer(optax.identity(), optax.sgd(0.1)))[0], trained(optax.sgd(0.1))[0])


COPIES = {
    'copy': copy.copy,
    'deepcopy': copy.deepcopy,
    'tree.map': lambda tx: jax.tree.map(lambda function: function, tx),
    'unflatten': lambda tx: jax.tree.unflatten(jax.tree.structure(tx), jax.tree.leaves(tx)),
}


@pytest.mark.parametrize('make', COPIES.values(), ids=COPIES)
def test_copies_keep_the_components(make):
    tx = optim.Optimizer(optim.rfn_sam(0.3), optax.sgd(0.1))
    found = make(tx)
    assert type(found) is optim.Optimizer
    assert (found.minimizer, found.descent) == (tx.minimizer, tx.descent)
    assert_equal(trained(found), trained(tx))


def test_an_optimizer_with_another_update_has_no_components():
    tx = optim.Optimizer(optim.rfn_sam(0.3), optax.sgd(0.1))
    found = tx._replace(update=lambda grads, state, params, **extra_args: (grads, state))
    assert type(found) is optax.GradientTransformationExtraArgs
    assert found.init is tx.init
    assert_equal(trained(found)[0], trained(optax.with_extra_args_support(optax.scale(1.0)))[0])


def test_hyperparameters_of_both_components_may_be_injected():
    def make(rho, learning_rate):
        return optim.Optimizer(optim.rfn_sam(rho), optax.sgd(learning_rate))

    found, state = trained(optax.inject_hyperparams(make)(rho=0.3, learning_rate=0.1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, trained(make(0.3, 0.1))[0])
    assert isinstance(state.inner_state, optim.OptimizerState)


NAN = float('nan')


@pytest.mark.parametrize('momentum', [0.0, 0.9])
@pytest.mark.parametrize('weight_decay', [0.0, 0.05])
@pytest.mark.parametrize('schedule', [False, True])
@pytest.mark.parametrize('name', ['sgd', 'rfn_sam'])
def test_momentum_sgd_is_the_sgd_of_pytorch(momentum, weight_decay, schedule, name):
    rate = optax.piecewise_constant_schedule(0.1, {5: 0.1}) if schedule else 0.1
    descent = minimizers.momentum_sgd(rate, momentum=momentum, weight_decay=weight_decay)
    flat = textbook.Flat(problems.convex())
    found = family.train(optax.chain(minimizers.MINIMIZERS.make(name), descent), flat.problem, 12, compiled=False)
    # The buffer accumulates gradients, not steps, so that a lower rate takes effect at once.
    expected = textbook.descend(
        flat,
        textbook.rule(flat, name.removeprefix('rfn_'), rho=0.4),
        12,
        learning_rate=lambda t: 0.01 if schedule and t >= 5 else 0.1,
        momentum=momentum,
        weight_decay=weight_decay,
    )
    np.testing.assert_allclose([flat.vector(params) for params, _, _ in found], expected, rtol=2e-6, atol=2e-6)


def test_the_table_of_minimizers():
    assert list(minimizers.MINIMIZERS) == [
        'asam', 'esam', 'friendly_sam', 'gsam', 'looksam', 'random_sam', 'rfn_asam', 'rfn_esam', 'rfn_friendly_sam',
        'rfn_gsam', 'rfn_looksam', 'rfn_sam', 'sam', 'sgd',
    ]  # fmt: skip
    for name in minimizers.MINIMIZERS:
        assert name == 'sgd' or minimizers.MINIMIZERS[name] is getattr(optim, name)
    for name, options, message in (
        ('rfn_sm', {}, "unknown minimizer 'rfn_sm'; did you mean 'rfn_sam'"),
        ('sgd', {'rho': 0.1}, "unknown option of minimizer 'sgd': 'rho'"),
        ('friendly_sam', {'sigma': '1'}, "sigma of minimizer 'friendly_sam' must be float, got '1'"),
    ):
        with pytest.raises(errors.InputError, match=message):
            minimizers.MINIMIZERS.make(name, **options)
    assert minimizers.MINIMIZERS.make('esam', rho=1, beta=1, gamma=1, seed=0, mask='no_biases')


@pytest.mark.parametrize(
    'tx',
    [
        optim.rfn_sam(0.3),
        optim.friendly_sam(0.3, sigma=0.0),
        optim.looksam(0.3, k=1),
        optax.chain(optim.sam(0.3), optim.momentum_sgd(0.1, momentum=0.9, weight_decay=0.0)),
        optim.Optimizer(optim.sam(0.3), optax.sgd(0.1)),
        optax.chain(optax.inject_hyperparams(optim.sam, static_args='mask')(rho=0.3), optax.sgd(0.1)),
        optax.chain(optim.sam(0.3), optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()),
    ],
)
def test_metrics_are_found_at_any_depth_and_under_jit(tx):
    (params, _, _), (_, _, state) = family.train(tx, problems.convex(), 2)
    norm = family.distance(problems.convex().jitted[0](params), jax.tree.map(np.zeros_like, params))
    for found in (optim.diagnostics(state), jax.jit(optim.diagnostics)(state)):
        assert found.keys() == {'gradient_norm', 'perturbation_norm', 'ascent_count', 'skipped_count'}
        np.testing.assert_allclose(found['perturbation_norm'], 0.3, rtol=1e-5)
        np.testing.assert_allclose(found['gradient_norm'], norm, rtol=1e-5)
        assert (int(found['ascent_count']), int(found['skipped_count'])) == (2, 0)


def test_without_or_with_two_minimizers_there_are_no_metrics():
    params = problems.convex().params
    assert optim.diagnostics(optax.sgd(0.1, momentum=0.9).init(params)) == {}
    with pytest.raises(errors.InputError, match='must hold one sharpness-aware minimizer, but holds 2'):
        optim.diagnostics(optax.chain(optim.sam(), optim.sam()).init(params))


@pytest.mark.parametrize(
    ('decay_epochs', 'steps_per_epoch'),
    # Decays may fall inside an epoch, and two of them at one step both count.
    [*itertools.product([(), (2,), (50, 100), [1, 2, 3]], [1, 7, 391]), ((0.5, 1.5), 4), ((1.1, 1.2), 2)],
)
def test_the_rate_falls_at_each_decay_epoch(decay_epochs, steps_per_epoch):
    schedule = schedules.step_decay(0.1, decay_epochs=decay_epochs, decay_factor=0.1, steps_per_epoch=steps_per_epoch)
    starts = [round(epoch * steps_per_epoch) for epoch in decay_epochs]
    for step in (start + shift for start in (1, *starts, 150 * steps_per_epoch) for shift in (-1, 0, 1)):
        expected = 0.1 * 0.1 ** sum(step >= start for start in starts)
        np.testing.assert_allclose(schedule(step), expected, rtol=1e-6, err_msg=f'step {step}')


def test_the_warm_up_grows_linearly_to_the_rate_that_decays():
    options = {'decay_epochs': (1.5,), 'decay_factor': 0.1, 'steps_per_epoch': 4}
    schedule = jax.jit(schedules.step_decay(0.8, warmup_epochs=2, **options))
    expected = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.07, 0.08, 0.08, 0.08]  # it decays at step 6, inside the warm-up
    np.testing.assert_allclose([schedule(jnp.int32(t)) for t in range(10)], expected, rtol=1e-6)


@pytest.mark.parametrize('rate', [0.05, optax.cosine_decay_schedule(0.1, 10), optax.linear_schedule(0.3, 0.0, 10)])
@pytest.mark.parametrize('low', [{}, {'learning_rate_min': 0.02}])
def test_rho_follows_the_learning_rate(rate, low):
    schedule = schedules.rho_with_learning_rate(rate, rho_min=0.1, rho_max=0.5, learning_rate_max=0.1, **low)
    (least,) = low.values() or [0.0]
    for count in range(12):
        eta = float(rate(count)) if callable(rate) else rate
        expected = 0.1 + (0.5 - 0.1) * (min(max(eta, least), 0.1) - least) / (0.1 - least)
        np.testing.assert_allclose(schedule(count), expected, rtol=1e-6)
        np.testing.assert_allclose(jax.jit(schedule)(jnp.int32(count)), expected, rtol=1e-6)


DECAY = {'learning_rate': 0.1, 'decay_epochs': (50,), 'decay_factor': 0.1, 'steps_per_epoch': 10}
SGD = {'learning_rate': 0.1, 'momentum': 0.9, 'weight_decay': 0}
RHO = {'learning_rate': 0.1, 'rho_min': 0.1, 'rho_max': 0.5, 'learning_rate_max': 0.1}
POSITIVE, INCREASING = 'must be a finite number above 0, got {}', 'must be positive and increasing, got {}'


@pytest.mark.parametrize(
    ('function', 'options', 'name', 'values', 'message'),
    [
        (minimizers.momentum_sgd, SGD, 'momentum', [1, 1.5, -0.1, NAN], 'number at least 0 and below 1, got {}'),
        (minimizers.momentum_sgd, SGD, 'weight_decay', [-1e-4, NAN], 'must be a finite number at least 0, got {}'),
        (schedules.step_decay, DECAY, 'learning_rate', [0, -0.1, NAN], POSITIVE),
        (schedules.step_decay, DECAY, 'decay_factor', [0.0], POSITIVE),
        (schedules.step_decay, DECAY, 'warmup_epochs', [-1, NAN], 'warmup_epochs must be a finite number at least 0'),
        (schedules.step_decay, DECAY, 'decay_epochs', [(100, 50), (50, 50), (0, 50), (-1,)], INCREASING),
        (schedules.rho_with_learning_rate, RHO, 'rho_min', [-0.1, 0.6], '0 <= rho_min <= rho_max, got {}, 0.5'),
        (schedules.rho_with_learning_rate, RHO, 'rho_max', [math.inf, NAN], '0 <= rho_min <= rho_max, got 0.1, {}'),
        (schedules.rho_with_learning_rate, RHO, 'learning_rate_max', [0.0], '< learning_rate_max, got 0.0, {}'),
        (
            schedules.rho_with_learning_rate,
            RHO,
            'learning_rate_min',
            [-0.1, 0.1],
            '0 <= learning_rate_min < learning_rate_max, got {}, 0.1',
        ),
    ],
)
def test_errors_name_the_value(function, options, name, values, message):
    for value in values:
        arguments = options | {name: value}
        with pytest.raises(errors.InputError, match=re.escape(message.format(value))) as caught:
            function(arguments.pop('learning_rate'), **arguments)
        assert name in str(caught.value)

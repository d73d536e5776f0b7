import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfn_jax.core import errors
from rfn_jax.optim import schedules


def paper(step, learning_rate, decay_epochs, factor, steps_per_epoch):
    return learning_rate * factor ** sum(step >= epoch * steps_per_epoch for epoch in decay_epochs)


@pytest.mark.parametrize('steps_per_epoch', [1, 7, 391])
@pytest.mark.parametrize('decay_epochs', [(), (2,), (50, 100), [1, 2, 3]])
def test_the_rate_falls_at_the_start_of_each_decay_epoch(steps_per_epoch, decay_epochs):
    schedule = schedules.step_decay(0.1, decay_epochs=decay_epochs, decay_factor=0.1, steps_per_epoch=steps_per_epoch)
    around = [epoch * steps_per_epoch + shift for epoch in (0, *decay_epochs, 150) for shift in (-1, 0, 1)]
    for step in (step for step in around if step >= 0):
        expected = paper(step, 0.1, decay_epochs, 0.1, steps_per_epoch)
        np.testing.assert_allclose(schedule(step), expected, rtol=1e-6, err_msg=f'step {step}')


def test_a_decay_may_fall_inside_an_epoch():
    schedule = schedules.step_decay(1.0, decay_epochs=(0.5, 1.5), decay_factor=0.5, steps_per_epoch=4)
    assert [float(schedule(step)) for step in range(8)] == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_two_decays_at_one_step_both_count():
    schedule = schedules.step_decay(1.0, decay_epochs=(1.1, 1.2), decay_factor=0.5, steps_per_epoch=2)
    assert float(schedule(1)) == 1
    assert float(schedule(2)) == 0.25


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'learning_rate': 0}, 'learning_rate must be a finite number above 0, got 0'),
        ({'learning_rate': -0.1}, 'learning_rate must be a finite number above 0, got -0.1'),
        ({'learning_rate': float('nan')}, 'learning_rate must be a finite number above 0, got nan'),
        ({'decay_factor': 0.0}, 'decay_factor must be a finite number above 0, got 0.0'),
        ({'decay_epochs': (100, 50)}, r'decay_epochs must be positive and increasing, got \(100, 50\)'),
        ({'decay_epochs': (50, 50)}, r'decay_epochs must be positive and increasing, got \(50, 50\)'),
        ({'decay_epochs': (0, 50)}, r'decay_epochs must be positive and increasing, got \(0, 50\)'),
        ({'decay_epochs': (-1,)}, r'decay_epochs must be positive and increasing, got \(-1,\)'),
    ],
)
def test_errors_name_the_value(changes, message):
    arguments = {'learning_rate': 0.1, 'decay_epochs': (50,), 'decay_factor': 0.1, 'steps_per_epoch': 10} | changes
    with pytest.raises(errors.InputError, match=message):
        schedules.step_decay(arguments.pop('learning_rate'), **arguments)


@pytest.mark.parametrize('rate', [0.05, optax.cosine_decay_schedule(0.1, 10), optax.linear_schedule(0.3, 0.0, 10)])
def test_rho_follows_the_learning_rate(rate):
    schedule = schedules.rho_with_learning_rate(
        rate, rho_min=0.1, rho_max=0.5, learning_rate_min=0.02, learning_rate_max=0.1
    )
    for count in range(12):
        eta = float(rate(count)) if callable(rate) else rate
        expected = 0.1 + (0.5 - 0.1) * (min(max(eta, 0.02), 0.1) - 0.02) / (0.1 - 0.02)
        np.testing.assert_allclose(schedule(count), expected, rtol=1e-6)
        np.testing.assert_allclose(jax.jit(schedule)(jnp.int32(count)), expected, rtol=1e-6)


def test_rho_at_the_ends_of_the_learning_rate():
    def rho(rate):
        return float(schedules.rho_with_learning_rate(rate, rho_min=0.1, rho_max=0.5, learning_rate_max=0.2)(0))

    assert [rho(rate) for rate in (0.0, 0.1, 0.2, 0.4)] == pytest.approx([0.1, 0.3, 0.5, 0.5])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'rho_min': -0.1}, r'0 <= rho_min <= rho_max, got -0\.1, 0\.5'),
        ({'rho_min': 0.6}, r'0 <= rho_min <= rho_max, got 0\.6, 0\.5'),
        ({'rho_max': float('inf')}, r'0 <= rho_min <= rho_max, got 0\.1, inf'),
        ({'rho_max': float('nan')}, r'0 <= rho_min <= rho_max, got 0\.1, nan'),
        ({'learning_rate_max': 0.0}, r'0 <= learning_rate_min < learning_rate_max, got 0\.0, 0\.0'),
        ({'learning_rate_min': -0.1}, r'0 <= learning_rate_min < learning_rate_max, got -0\.1, 0\.1'),
        ({'learning_rate_min': 0.1}, r'0 <= learning_rate_min < learning_rate_max, got 0\.1, 0\.1'),
    ],
)
def test_errors_of_rho_name_the_value(changes, message):
    arguments = {'rho_min': 0.1, 'rho_max': 0.5, 'learning_rate_max': 0.1} | changes
    with pytest.raises(errors.InputError, match=message):
        schedules.rho_with_learning_rate(0.1, **arguments)

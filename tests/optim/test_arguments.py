import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfn_jax.core import errors
from rfn_jax.optim import arguments

NAN = float('nan')


@pytest.mark.parametrize('value', [0, 1, 0.5, np.float32(0.5), np.int64(1), jnp.float32(-3), jnp.asarray(NAN)])
def test_numbers_and_arrays_pass(value):
    arguments.check_number('x', value, at_least=0, at_most=1)
    arguments.check_rho(value)


@pytest.mark.parametrize('value', [1, np.int64(3), jnp.int32(0)])
def test_integers_and_arrays_pass(value):
    arguments.check_integer('k', value, at_least=1)
    arguments.check_seed(value)


@pytest.mark.parametrize('value', [True, '1', None, [1], 1j, np.array(0.5)])
def test_values_that_are_not_numbers(value):
    for check in (
        lambda: arguments.check_number('x', value),
        lambda: arguments.check_integer('x', value),
        lambda: arguments.check_seed(value),
        lambda: arguments.check_rho(value),
    ):
        with pytest.raises(TypeError, match=r'must be an? (integer|finite number)'):
            check()


def test_ranges():
    for check, message in (
        (lambda: arguments.check_number('x', 1.5, at_most=1), 'x must be a finite number at most 1, got 1.5'),
        (lambda: arguments.check_integer('k', 0, at_least=1), 'k must be an integer of at least 1, got 0'),
        (lambda: arguments.check_seed(-1), 'seed must be an integer from 0 to 2147483647, got -1'),
        (lambda: arguments.check_rho(-0.1), 'rho must be a finite number at least 0, got -0.1'),
    ):
        with pytest.raises(ValueError, match=f'^{message}$'):
            check()


def test_the_error_for_a_wrong_radius_mentions_schedules():
    allowed = r'a finite number at least 0 or a schedule \(a function of the number of updates\)'
    with pytest.raises(errors.InputTypeError, match=rf"^rho must be {allowed}, got '0\.4'$"):
        arguments.check_rho('0.4')


def test_a_schedule_is_a_radius():
    arguments.check_rho(optax.constant_schedule(0.1))
    arguments.check_rho(lambda count: 0.1)


def test_masked_nodes_in_the_updates():
    params = {'a': jnp.ones(2), 'b': jnp.ones(3)}
    arguments.check_update('method', params, params, len)
    with pytest.raises(TypeError, match=r'^method cannot run inside optax\.masked or optax\.partition'):
        arguments.check_update('method', params | {'b': optax.MaskedNode()}, params, len)

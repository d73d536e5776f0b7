import math

import numpy as np
import pytest

from rfn_jax.core import checks, errors


@pytest.mark.parametrize(
    ('check', 'kind', 'values'),
    [(checks.integer, int, [1, 3, np.int64(2), np.uint8(3)]), (checks.number, float, [1.5, 1, np.float32(2.25)])],
)
def test_python_and_numpy_numbers_are_returned_as_python_numbers(check, kind, values):
    for value in values:
        found = check('steps', value, at_least=1, at_most=3)
        assert found == value
        assert type(found) is kind


@pytest.mark.parametrize(
    ('bounds', 'allowed'),
    [
        ({}, 'an integer'),
        ({'at_least': 1}, 'an integer of at least 1'),
        ({'at_most': 4}, 'an integer of at most 4'),
        ({'at_least': 1, 'at_most': 4}, 'an integer from 1 to 4'),
    ],
)
def test_a_value_that_is_not_an_integer_is_a_type_error_that_says_what_is_allowed(bounds, allowed):
    for value in (True, 1.0, '1', None, np.float32(2)):
        with pytest.raises(errors.InputTypeError) as caught:
            checks.integer('steps', value, **bounds)
        assert str(caught.value) == f'steps must be {allowed}, got {value!r}'
        assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize('value', [0, 5, -1, np.int64(9)])
def test_an_integer_out_of_range_is_a_value_error(value):
    with pytest.raises(errors.InputError, match='from 1 to 4') as caught:
        checks.integer('steps', value, at_least=1, at_most=4)
    assert not isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ('bounds', 'allowed', 'wrong'),
    [
        ({}, 'a finite number', [math.inf, math.nan]),
        ({'above': 0}, 'a finite number above 0', [0, -1.0, math.inf]),
        ({'at_least': 0, 'below': 1}, 'a finite number at least 0 and below 1', [-0.1, 1, 1.5]),
        ({'at_least': 0, 'at_most': 0.5}, 'a finite number at least 0 and at most 0.5', [0.6, math.nan]),
    ],
)
def test_a_number_out_of_range_is_a_value_error_that_says_what_is_allowed(bounds, allowed, wrong):
    for value in wrong:
        with pytest.raises(errors.InputError) as caught:
            checks.number('rho', value, **bounds)
        assert str(caught.value) == f'rho must be {allowed}, got {value!r}'
        assert not isinstance(caught.value, TypeError)


@pytest.mark.parametrize('value', [True, '1', None, 1j, [1.0]])
def test_a_value_that_is_not_a_number_is_a_type_error(value):
    with pytest.raises(errors.InputTypeError, match='rho must be a finite number'):
        checks.number('rho', value)


def test_strings():
    assert checks.string('layer', 'layer1', 'the name of a layer') == 'layer1'
    with pytest.raises(errors.InputTypeError, match='layer must be the name of a layer, got 1'):
        checks.string('layer', 1, 'the name of a layer')
    with pytest.raises(errors.InputError, match="path must be a string, got ''"):
        checks.string('path', '')


def test_unknown_names_come_with_the_nearest_ones():
    assert checks.one_of('norm', 'l2', ('linf', 'l2')) == 'l2'
    for value in ('linff', 3, None):
        with pytest.raises(errors.InputError, match='unknown norm'):
            checks.one_of('norm', value, ('linf', 'l2'))
    with pytest.raises(errors.InputError, match="did you mean 'linf'"):
        checks.one_of('norm', 'linff', ('linf', 'l2'))

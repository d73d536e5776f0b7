import math

import numpy as np
import pytest

from rfn_jax.core import checks, errors

NUMBER = 'a finite number'


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
    ('check', 'bounds', 'allowed', 'out_of_range'),
    [
        (checks.integer, {}, 'an integer', []),
        (checks.integer, {'at_least': 1}, 'an integer of at least 1', [0]),
        (checks.integer, {'at_most': 4}, 'an integer of at most 4', [5]),
        (checks.integer, {'at_least': 1, 'at_most': 4}, 'an integer from 1 to 4', [0, 5, -1, np.int64(9)]),
        (checks.number, {}, NUMBER, [math.inf, math.nan]),
        (checks.number, {'above': 0}, f'{NUMBER} above 0', [0, -1.0, math.inf]),
        (checks.number, {'at_least': 0, 'below': 1}, f'{NUMBER} at least 0 and below 1', [-0.1, 1, 1.5]),
        (checks.number, {'at_least': 0, 'at_most': 0.5}, f'{NUMBER} at least 0 and at most 0.5', [0.6, math.nan]),
    ],
)
def test_wrong_types_and_values_out_of_range_are_two_kinds_of_errors_that_say_what_is_allowed(
    check, bounds, allowed, out_of_range
):
    wrong_types = [True, '1', None, 1j, [1.0], *([1.0, np.float32(2)] if check is checks.integer else [])]
    for values, kind in ((wrong_types, errors.InputTypeError), (out_of_range, errors.InputError)):
        for value in values:
            with pytest.raises(kind) as caught:
                check('rho', value, **bounds)
            assert str(caught.value) == f'rho must be {allowed}, got {value!r}'
            assert isinstance(caught.value, TypeError) == (values is wrong_types)


def test_strings():
    assert checks.string('layer', 'layer1', 'the name of a layer') == 'layer1'
    with pytest.raises(errors.InputTypeError, match='layer must be the name of a layer, got 1'):
        checks.string('layer', 1, 'the name of a layer')
    with pytest.raises(errors.InputError, match="path must be a string, got ''"):
        checks.string('path', '')


def test_unknown_names_come_with_the_nearest_ones():
    assert checks.one_of('norm', 'l2', ('linf', 'l2')) == 'l2'
    for value, message in (('linff', "'linff'; did you mean 'linf'"), (3, "'3'"), (None, "'None'")):
        with pytest.raises(errors.InputError, match=f'unknown norm {message}'):
            checks.one_of('norm', value, ('linf', 'l2'))
    error = str(errors.unknown_name('model', 'resnet_18', ['resnet50', 'vgg13', 'resnet18']))
    assert error.startswith("unknown model 'resnet_18'; did you mean 'resnet18'")
    assert 'vgg13' not in error
    assert str(errors.unknown_name('model', 'zzz', ['b', 'a'])) == "unknown model 'zzz'; known: a, b"


def test_users_of_the_library_can_catch_the_built_in_errors():
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.RunError, RuntimeError)
    assert not issubclass(errors.RunError, ValueError)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.core import errors
from rfn_jax.models import ranges


@pytest.mark.parametrize(
    ('check', 'given', 'checked'),
    [
        (ranges.check_sizes, {'a': 1, 'b': np.int64(3)}, {'a': 1, 'b': 3}),
        (ranges.check_positive, {'a': 1, 'b': 0.5}, {'a': 1.0, 'b': 0.5}),
        (ranges.check_rates, {'a': 0, 'b': np.float64(0.99)}, {'a': 0.0, 'b': 0.99}),
        (ranges.check_loss_weights, {'a': 0, 'b': 3.5}, {'a': 0.0, 'b': 3.5}),
        (ranges.check_odd, {'a': 1, 'b': np.int64(7)}, {'a': 1, 'b': 7}),
        (ranges.check_widths, {'a': (), 'b': [np.int64(3), 4]}, {'a': (), 'b': (3, 4)}),
        (ranges.check_stages, {'a': (2, 1), 'b': [3, np.int64(4)]}, {'a': (2, 1), 'b': (3, 4)}),
    ],
)
def test_valid_options_are_returned_as_plain_numbers(check, given, checked):
    found = check(**given)
    assert found == checked
    assert repr(found) == repr(checked)


@pytest.mark.parametrize(
    ('check', 'value', 'message'),
    [
        (ranges.check_sizes, 0, 'b must be an integer of at least 1, got 0'),
        (ranges.check_sizes, 2.0, 'b must be an integer of at least 1, got 2.0'),
        *((ranges.check_positive, value, f'b must be a finite number above 0, got {value}') for value in (0, -1)),
        *((ranges.check_positive, float(v), f'b must be a finite number above 0, got {v}') for v in ('nan', 'inf')),
        *((ranges.check_rates, v, f'b must be a finite number at least 0 and below 1, got {v}') for v in (-0.1, 1)),
        (ranges.check_rates, float('nan'), 'b must be a finite number at least 0 and below 1, got nan'),
        (ranges.check_loss_weights, -0.1, 'b must be a finite number at least 0, got -0.1'),
        (ranges.check_loss_weights, float('inf'), 'b must be a finite number at least 0, got inf'),
        *((ranges.check_odd, value, f'b must be an integer of at least 1, got {value}') for value in (0, -1)),
        (ranges.check_odd, 4, 'b must be odd, got 4'),
        (ranges.check_widths, (3, 0), r'b\[1\] must be an integer of at least 1, got 0'),
    ],
)
def test_options_out_of_range(check, value, message):
    with pytest.raises(errors.InputError, match=f'^{message}$'):
        check(b=value)


@pytest.mark.parametrize(
    ('a', 'b', 'message'),
    [
        ([2, 2], (3,), r'^a \(2, 2\) and b \(3,\) need the same number of stages, at least one$'),
        ((), (3,), r'^a \(\) and b \(3,\) need'),
        ((), (), r'^a \(\) and b \(\) need'),
        ((2, 1), (3, 0), r'^b\[1\] must be an integer of at least 1, got 0$'),
        ((-2, 1), (3, 4), r'^a\[0\] must be an integer of at least 1, got -2$'),
    ],
)
def test_stages_that_do_not_match(a, b, message):
    with pytest.raises(errors.InputError, match=message):
        ranges.check_stages(a=a, b=b)


def test_the_rows_of_a_table_are_plain_integers():
    rows = [[1, np.int64(2)], (3, 5)]
    assert repr(ranges.check_table('rows', rows, ('kernel', 'blocks'))) == '((1, 2), (3, 5))'


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ((), r'^rows must have at least one row of kernel, blocks, got \(\)$'),
        (((1, 2), (3,)), r'^rows must have at least one row of kernel, blocks, got \(\(1, 2\), \(3,\)\)$'),
        (((1, 2), (4, 2)), r'^kernel of rows\[1\] must be odd, got 4$'),
        (((1, 0),), r'^blocks of rows\[0\] must be an integer of at least 1, got 0$'),
    ],
)
def test_invalid_rows(rows, message):
    with pytest.raises(errors.InputError, match=message):
        ranges.check_table('rows', rows, ('kernel', 'blocks'))


@pytest.mark.parametrize(('height', 'width'), [(7, 8), (100, 7)])
def test_images_that_are_too_small(height, width):
    ranges.check_image(jnp.zeros((1, 8, 9, 3)), 8, 'VGG')
    message = (
        f'^an image of {height} x {width} pixels is too small for this VGG, which needs at least 8 rows and columns$'
    )
    with pytest.raises(errors.InputError, match=message):
        ranges.check_image(jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32), 8, 'VGG')

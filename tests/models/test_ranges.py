import jax
import jax.numpy as jnp
import pytest

from rfn_jax.core import errors
from rfn_jax.models import ranges


@pytest.mark.parametrize('value', [0, -1, float('nan'), float('inf')])
def test_what_is_not_positive(value):
    ranges.check_positive(a=1, b=0.5)
    with pytest.raises(errors.InputError, match=rf'^b must be above 0, got {value}$'):
        ranges.check_positive(a=1, b=value)


@pytest.mark.parametrize('rate', [-0.1, 1, 1.0, float('nan')])
def test_what_is_no_rate(rate):
    ranges.check_rates(a=0, b=0.99)
    with pytest.raises(errors.InputError, match=rf'^b must be in \[0, 1\), got {rate}$'):
        ranges.check_rates(a=0, b=rate)


@pytest.mark.parametrize('weight', [-0.1, float('nan'), float('inf')])
def test_what_is_no_weight(weight):
    ranges.check_weights(a=0, b=3.5)
    with pytest.raises(errors.InputError, match=rf'^b must be at least 0, got {weight}$'):
        ranges.check_weights(a=0, b=weight)


@pytest.mark.parametrize('size', [0, -1, 4])
def test_what_is_not_odd(size):
    ranges.check_odd(a=1, b=7)
    with pytest.raises(errors.InputError, match=rf'^b must be an odd number of at least 1, got {size}$'):
        ranges.check_odd(a=1, b=size)


@pytest.mark.parametrize(
    ('a', 'b', 'message'),
    [
        ([2, 2], (3,), r'^a \(2, 2\) and b \(3,\) need the same number of stages, at least one$'),
        ((), (3,), r'^a \(\) and b \(3,\) need'),
        ((), (), r'^a \(\) and b \(\) need'),
        ((2, 1), (3, 0), r'^b must be at least 1 in every stage, got \(3, 0\)$'),
        ((-2, 1), (3, 4), r'^a must be at least 1 in every stage, got \(-2, 1\)$'),
    ],
)
def test_stages_that_do_not_fit(a, b, message):
    ranges.check_stages(a=(2, 1), b=[3, 4])
    with pytest.raises(errors.InputError, match=message):
        ranges.check_stages(a=a, b=b)


@pytest.mark.parametrize(('height', 'width'), [(7, 8), (100, 7)])
def test_images_that_are_too_small(height, width):
    ranges.check_image(jnp.zeros((1, 8, 9, 3)), 8, 'VGG')
    message = (
        f'^an image of {height} x {width} pixels is too small for this VGG, which needs at least 8 rows and columns$'
    )
    with pytest.raises(errors.InputError, match=message):
        ranges.check_image(jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32), 8, 'VGG')

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

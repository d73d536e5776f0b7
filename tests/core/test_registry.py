import doctest
import functools

import pytest

from rfn_jax.core import errors, registry


@pytest.fixture
def table():
    table = registry.Registry('shape')

    @table.register
    def circle(radius, *, center=(0, 0)):
        return ('circle', radius, center)

    table.add('unit_circle', functools.partial(circle, radius=1))
    return table


def test_the_example_of_the_docstring_runs():
    results = doctest.testmod(registry)
    assert results.attempted > 0
    assert results.failed == 0


def test_make_calls_the_factory(table):
    assert table.make('circle', radius=2) == ('circle', 2, (0, 0))
    assert table.make('unit_circle', center=(1, 1)) == ('circle', 1, (1, 1))
    assert table.make('unit_circle', radius=3) == ('circle', 3, (0, 0))  # a preset may be overridden


def test_register_returns_the_factory_unchanged(table):
    def square():
        return 'square'

    assert table.register(square) is square
    assert table['square'] is square


def test_names_are_listed_in_order(table):
    assert list(table) == ['circle', 'unit_circle']
    assert 'circle' in table
    assert 'square' not in table


def test_a_name_can_be_registered_only_once(table):
    with pytest.raises(ValueError, match="shape 'circle' is already registered"):
        table.add('circle', dict)


def test_unknown_name(table):
    with pytest.raises(errors.InputError, match="unknown shape 'cirle'; did you mean 'circle'"):
        table.make('cirle')


def test_unknown_option_names_the_nearest(table):
    with pytest.raises(errors.InputError, match=r"unknown option of shape 'circle': 'centr'; did you mean 'center'\?"):
        table.make('circle', radius=1, centr=(0, 0))


def test_missing_option(table):
    with pytest.raises(errors.InputError, match=r"^shape 'circle' needs radius$"):
        table.make('circle')


def test_errors_of_the_factory_pass_through():
    table = registry.Registry('shape')

    @table.register
    def broken(x):
        raise TypeError(f'x was {x}')

    with pytest.raises(TypeError, match='x was 5'):
        table.make('broken', x=5)

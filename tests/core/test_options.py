import doctest
import functools
from collections.abc import Mapping, Sequence
from typing import Required, TypedDict, Unpack

import pytest

from rfn_jax.core import errors, options, registry


def made(
    *,
    count: int = 1,
    rate: float = 0.1,
    flag: bool = False,
    word: str = 'a',
    sizes: Sequence[int] = (1,),
    stages: Sequence[Sequence[int]] = ((1,),),
    rest: Mapping[str, object] | None = None,
    anything=None,
):
    return count, rate, flag, word, sizes, stages, rest, anything


@pytest.mark.parametrize(
    'option',
    [
        {'count': 3}, {'rate': 3}, {'rate': 0.5}, {'flag': True}, {'word': 'b'}, {'sizes': [1, 2]}, {'sizes': (1, 2)},
        {'sizes': ()}, {'stages': [[1], (2, 3)]}, {'rest': {'a': 1}}, {'rest': None}, {'anything': object()},
    ],
)  # fmt: skip
def test_values_of_the_right_type_are_passed_on(option):
    assert next(iter(option.values())) in options.call('a thing', made, option)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ({'count': 2.5}, 'count of a thing must be int, got 2.5'),
        ({'count': True}, 'count of a thing must be int, got True'),
        ({'rate': 'x'}, "rate of a thing must be float, got 'x'"),
        ({'rate': False}, 'rate of a thing must be float, got False'),
        ({'flag': 1}, 'flag of a thing must be bool, got 1'),
        ({'word': 1}, 'word of a thing must be str, got 1'),
        ({'sizes': 5}, r'sizes of a thing must be .*Sequence.*, got 5'),
        ({'sizes': [1, 'x']}, r"sizes of a thing must be .*, got \[1, 'x'\]"),
        ({'sizes': True}, 'sizes of a thing must be .*, got True'),
        ({'stages': [1]}, r'stages of a thing must be .*, got \[1\]'),
        ({'rest': 3}, 'rest of a thing must be .*, got 3'),
        ({'cuont': 3}, "unknown option of a thing: 'cuont'; did you mean 'count'"),
        ([1], r'a thing needs a mapping of options, got \[1\]'),
    ],
)
def test_wrong_options_are_named(option, message):
    with pytest.raises(errors.InputError, match=message):
        options.call('a thing', made, option)


def test_missing_options_are_named():
    with pytest.raises(errors.InputError, match=r'a thing needs a, b$'):
        options.call('a thing', lambda a, b, c=1: None, {})


class Shared(TypedDict, total=False):
    steps: int
    size: Required[float | None]


class More(Shared, total=False):
    word: str


def passing_on(*, rate: float = 0.1, **shared: Unpack[More]):
    return rate, shared


def test_options_that_are_passed_on_are_those_of_their_typed_dict():
    found = options.parameters(passing_on)
    assert [(p.name, p.default) for p in found.values() if p.default is not p.empty] == [
        ('rate', 0.1),
        ('steps', ...),
        ('word', ...),
    ]
    assert options.call('a thing', passing_on, {'size': None, 'steps': 2}) == (0.1, {'size': None, 'steps': 2})
    for given, message in (
        ({'size': 1.0, 'steps': 2.5}, 'steps of a thing must be int, got 2.5'),
        ({'size': 'x'}, r"size of a thing must be float \| None, got 'x'"),
        ({'size': 1.0, 'stpes': 2}, "unknown option of a thing: 'stpes'; did you mean 'steps'"),
        ({'steps': 2}, 'a thing needs size$'),
    ):
        with pytest.raises(errors.InputError, match=message):
            options.call('a thing', passing_on, given)


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


def test_names_are_listed_in_order_and_the_factory_is_unchanged(table):
    assert list(table) == ['circle', 'unit_circle']
    assert 'circle' in table
    assert 'square' not in table
    square = lambda: 'square'  # noqa: E731
    square.__name__ = 'square'
    assert table.register(square) is square
    assert table['square'] is square


def test_a_name_can_be_registered_only_once(table):
    with pytest.raises(ValueError, match="shape 'circle' is already registered"):
        table.add('circle', dict)


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('cirle', {}, "unknown shape 'cirle'; did you mean 'circle'"),
        ('circle', {'radius': 1, 'centr': 0}, r"unknown option of shape 'circle': 'centr'; did you mean 'center'\?"),
        ('circle', {}, r"^shape 'circle' needs radius$"),
    ],
)
def test_unknown_names_and_wrong_options_of_a_registry(table, name, options, message):
    with pytest.raises(errors.InputError, match=message):
        table.make(name, **options)


def test_errors_of_the_factory_pass_through(table):
    @table.register
    def broken(x):
        raise TypeError(f'x was {x}')

    with pytest.raises(TypeError, match='x was 5'):
        table.make('broken', x=5)

from collections.abc import Mapping, Sequence
from typing import Required, TypedDict, Unpack

import pytest

from rfn_jax.core import errors, options


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

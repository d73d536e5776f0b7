"""Checks of arguments: one wording and one kind of error for each kind of value.

A value of the wrong type raises an `InputTypeError` (a TypeError), and a value out of range an `InputError` (a ValueError);
the command line turns both into one line. NumPy numbers are accepted wherever Python numbers are.
"""

import math
import numbers
from collections.abc import Collection
from typing import Any

from rfn_jax.core import errors


def integer(name: str, value: Any, *, at_least: int | None = None, at_most: int | None = None) -> int:
    """Checks an integer.

    Args:
      name: What to call the value in the message.
      value: The value.
      at_least: The smallest value allowed.
      at_most: The largest value allowed.

    Returns:
      The value as an `int`.

    Raises:
      InputTypeError: It is not an integer; a boolean does not count as one.
      InputError: It is out of range.
    """
    if at_least is not None and at_most is not None:
        allowed = f'an integer from {at_least} to {at_most}'
    elif at_least is not None:
        allowed = f'an integer of at least {at_least}'
    else:
        allowed = 'an integer' if at_most is None else f'an integer of at most {at_most}'
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise errors.InputTypeError(f'{name} must be {allowed}, got {value!r}')
    if (at_least is not None and value < at_least) or (at_most is not None and value > at_most):
        raise errors.InputError(f'{name} must be {allowed}, got {value!r}')
    return int(value)


def number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """Checks a finite number.

    Args:
      name: What to call the value in the message.
      value: The value.
      above: Exclusive lower bound.
      at_least: The smallest value allowed.
      below: Exclusive upper bound.
      at_most: The largest value allowed.

    Returns:
      The value as a `float`.

    Raises:
      InputTypeError: It is not a real number; a boolean does not count as one.
      InputError: It is not finite, or is out of range.
    """
    bounds = (('above', above), ('at least', at_least), ('below', below), ('at most', at_most))
    allowed = ' and '.join(f'{word} {bound:g}' for word, bound in bounds if bound is not None)
    allowed = f'a finite number {allowed}'.rstrip()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise errors.InputTypeError(f'{name} must be {allowed}, got {value!r}')
    in_range = (
        math.isfinite(value)
        and (above is None or value > above)
        and (at_least is None or value >= at_least)
        and (below is None or value < below)
        and (at_most is None or value <= at_most)
    )
    if not in_range:
        raise errors.InputError(f'{name} must be {allowed}, got {value!r}')
    return float(value)


def string(name: str, value: Any, what: str = 'a string') -> str:
    """Checks that a value is a string and not empty.

    Args:
      name: What to call the value in the message.
      value: The value.
      what: What the message says it must be, such as `'the name of a layer'`.

    Raises:
      InputTypeError: It is not a string.
      InputError: It is empty.
    """
    if not isinstance(value, str):
        raise errors.InputTypeError(f'{name} must be {what}, got {value!r}')
    if not value:
        raise errors.InputError(f'{name} must be {what}, got {value!r}')
    return value


def one_of(kind: str, value: Any, known: Collection[str]) -> str:
    """Checks that a name is a known one.

    Args:
      kind: What the name stands for, such as `'norm'`.
      value: The name.
      known: The names that exist.

    Raises:
      InputError: It is not one of them; the message suggests the nearest ones.
    """
    if not isinstance(value, str) or value not in known:
        raise errors.unknown_name(kind, value, known)
    return value

"""Options given by the user, checked against the signature of the function or class that takes them."""

import collections.abc
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Mapping
from typing import TypeVar

from rfn_jax.core import errors

Made = TypeVar('Made')


def call(what: str, factory: Callable[..., Made], options: Mapping[str, object]) -> Made:
    """Calls `factory` with keyword options, after checking their names and types.

    Args:
      what: What the factory makes, for messages.
      factory: A function or class whose parameters can all be passed by name; see `parameters`.
      options: The values. They are checked where the parameter is annotated with a number, a string, a boolean, a mapping, or
        a sequence of these; an integer is accepted for a float, and a list for a tuple.

    Raises:
      InputError: An option is unknown (with the nearest names), missing, or of the wrong type.
    """
    if not isinstance(options, Mapping):
        raise errors.InputError(f'{what} needs a mapping of options, got {options!r}')
    known = parameters(factory)
    for option, value in options.items():
        if option not in known:
            raise errors.unknown_name(f'option of {what}:', option, known)
        annotation = known[option].annotation
        if not _matches(value, annotation):
            wanted = getattr(annotation, '__name__', None) if isinstance(annotation, type) else str(annotation)
            raise errors.InputError(f'{option} of {what} must be {wanted}, got {value!r}')
    missing = [name for name, p in known.items() if p.default is p.empty and name not in options]
    if missing:
        raise errors.InputError(f'{what} needs {", ".join(missing)}')
    return factory(**options)


def parameters(factory: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a function or class by name.

    `**options: Unpack[Shared]` stands for the keys of the TypedDict `Shared`, as it does for type checkers. Keys that are not
    required have the default `...`: only the function that the options are passed on to knows the actual default.
    """
    by_name = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        if typing.get_origin(parameter.annotation) is not typing.Unpack:
            by_name[name] = parameter
            continue
        (shared,) = typing.get_args(parameter.annotation)
        for key, annotation in typing.get_type_hints(shared).items():
            default = parameter.empty if key in shared.__required_keys__ else ...
            by_name[key] = inspect.Parameter(key, parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    return by_name


def _matches(value: object, annotation: object) -> bool:
    """Returns whether a value matches an annotation; true for annotations that say nothing about plain values."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, part) for part in typing.get_args(annotation))
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    if annotation in (str, types.NoneType):
        return isinstance(value, annotation)
    if annotation is Mapping or origin is collections.abc.Mapping:
        return isinstance(value, Mapping)
    if origin in (tuple, collections.abc.Sequence):
        return isinstance(value, (list, tuple)) and all(_matches(v, typing.get_args(annotation)[0]) for v in value)
    return True

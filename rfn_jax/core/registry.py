"""Tables from names to factories, with errors that help."""

import inspect
from collections.abc import Callable, Iterator, Mapping

from rfn_jax.core import errors


class Registry:
    """A table from names to factories, filled by a decorator.

    Args:
      kind: What the names stand for, in the singular; used in messages.

    Example:
      >>> models = Registry('model')
      >>> @models.register
      ... def mlp(width: int = 64):
      ...     return width
      >>> models.make('mlp', width=8)
      8
      >>> models.make('mpl')
      Traceback (most recent call last):
        ...
      rfn_jax.core.errors.InputError: unknown model 'mpl'; did you mean 'mlp'?
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._factories: dict[str, Callable] = {}

    def register(self, factory: Callable) -> Callable:
        """Adds `factory` under its own name and returns it unchanged."""
        self.add(factory.__name__, factory)
        return factory

    def add(self, name: str, factory: Callable) -> None:
        """Adds `factory`, such as a `functools.partial` of another one, under `name`."""
        if name in self._factories:
            raise ValueError(f'{self.kind} {name!r} is registered already')
        self._factories[name] = factory

    def __getitem__(self, name: str) -> Callable:
        try:
            return self._factories[name]
        except KeyError:
            raise errors.unknown_name(self.kind, name, self._factories) from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._factories))

    def __contains__(self, name: str) -> bool:
        return name in self._factories

    def make(self, name: str, **options):
        """Calls the factory `name` with `options`.

        Raises:
          InputError: The name is unknown, or an option is unknown or missing; unknown ones with the nearest names.
        """
        return call(f'{self.kind} {name!r}', self[name], options)


def call(what: str, factory: Callable, options: Mapping[str, object]):
    """Calls `factory` with options that a user wrote, by name.

    Args:
      what: What is made, for messages.
      factory: A function or class whose parameters all have names.
      options: The values.

    Raises:
      InputError: An option is unknown (with the nearest names) or missing.
    """
    parameters = inspect.signature(factory).parameters
    for option in options:
        if option not in parameters:
            raise errors.unknown_name(f'option of {what}:', option, parameters)
    missing = [name for name, p in parameters.items() if p.default is p.empty and name not in options]
    if missing:
        raise errors.InputError(f'{what} needs {", ".join(missing)}')
    return factory(**options)

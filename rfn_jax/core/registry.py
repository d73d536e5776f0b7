"""Tables from names to factories, with helpful errors."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from rfn_jax.core import errors
from rfn_jax.core import options as options_lib

Made = TypeVar('Made')
Factory = TypeVar('Factory', bound=Callable[..., Any])


class Registry(Generic[Made]):
    """A table from names to factories, filled by a decorator; `Registry[T]` is one of factories that make a `T`.

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
        self._factories: dict[str, Callable[..., Made]] = {}

    def register(self, factory: Factory) -> Factory:
        """Adds `factory` under its own name and returns it unchanged."""
        self.add(factory.__name__, factory)
        return factory

    def add(self, name: str, factory: Callable[..., Made]) -> None:
        """Adds `factory`, such as a `functools.partial` of another one, under `name`."""
        if name in self._factories:
            raise ValueError(f'{self.kind} {name!r} is already registered')
        self._factories[name] = factory

    def __getitem__(self, name: str) -> Callable[..., Made]:
        try:
            return self._factories[name]
        except KeyError:
            raise errors.unknown_name(self.kind, name, self._factories) from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._factories))

    def __contains__(self, name: str) -> bool:
        return name in self._factories

    def make(self, name: str, **options: Any) -> Made:
        """Calls the factory `name` with `options`.

        Raises:
          InputError: The name is unknown, or an option is unknown, missing or of the wrong type.
        """
        return options_lib.call(f'{self.kind} {name!r}', self[name], options)

    def make_from(self, spec: Mapping[str, Any], **more: Any) -> Made:
        """Makes what a spec in a config asks for: calls the factory `spec['name']` with the other entries and with `more`.

        Raises:
          InputError: As for `make`; also if `spec` is not a mapping with a name, or sets an option that is in `more`.
        """
        if not isinstance(spec, Mapping) or not isinstance(spec.get('name'), str):
            raise errors.InputError(f'the spec of {self.kind} must be a mapping with a name, got {spec!r}')
        for option in more.keys() & spec.keys():
            raise errors.InputError(f'{option} of {self.kind} {spec["name"]!r} cannot be set in a config')
        return self.make(**spec, **more)

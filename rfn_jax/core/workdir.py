"""A work directory, bound to one config for its whole life."""

import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping

from rfn_jax.core import errors, files

# What differs between machines and changes no result: where data and imported weights lie (files are bound by their hashes),
# and how many steps the host starts together.
UNBOUND = re.compile(
    r'data\.(data_dir|path)|(targets|validation_targets|surrogates)\..*\.weights|(.*\.)?optim\.steps_per_call'
)


def plain(config: Mapping) -> dict:
    """The config as JSON holds it: nested dictionaries, with lists for tuples.

    Raises:
      InputError: A value is not plain.
    """
    try:
        return json.loads(json.dumps(config))
    except (TypeError, ValueError) as error:
        raise errors.InputError(f'a config may hold only plain values: {error}') from error


def is_bound(directory: os.PathLike | str) -> bool:
    """Whether the directory is the work directory of some config."""
    return (pathlib.Path(directory) / 'config.json').exists()


def bound_config(directory: os.PathLike | str) -> dict:
    """The config of a work directory.

    Raises:
      InputError: It has none, or its `config.json` is damaged.
    """
    path = pathlib.Path(directory) / 'config.json'
    config = files.read_json(path)
    if not isinstance(config, dict):
        raise errors.InputError(f'{path} is not a config, it holds {config!r}')
    return config


def bind(directory: os.PathLike | str, config: Mapping) -> pathlib.Path:
    """Makes the work directory of a config, or checks that it is this config's.

    Args:
      directory: The work directory; made if it is not there.
      config: Nested mapping of plain values; written to `config.json` the first time.

    Returns:
      The directory.

    Raises:
      InputError: The directory cannot be written, or was made from another config; the message names what differs.
    """
    directory = pathlib.Path(directory)
    config = plain(config)
    if not is_bound(directory):
        try:
            files.write_json(directory / 'config.json', config)
        except errors.RunError as error:
            raise errors.InputError(f'cannot write to the work directory: {error}') from error
        return directory
    there, here = (dict(_flatten(c)) for c in (bound_config(directory), config))
    absent = object()
    different = [
        f'{key} is {there.get(key, "absent")!r} there and {here.get(key, "absent")!r} here'
        for key in sorted(there.keys() | here.keys())
        if not UNBOUND.fullmatch(key) and there.get(key, absent) != here.get(key, absent)
    ]
    if different:
        more = f' (and {len(different) - 5} more)' if len(different) > 5 else ''
        raise errors.InputError(
            f'{directory} was made from another config: {"; ".join(different[:5])}{more}; choose another --workdir'
        )
    if not os.access(directory, os.W_OK):
        raise errors.InputError(f'cannot write to the work directory {directory}: permission denied')
    return directory


def _flatten(config: Mapping, prefix: str = '') -> Iterator[tuple[str, object]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value

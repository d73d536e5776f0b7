"""The config that a work directory was last used with, and the version of its layout."""

import os
from collections.abc import Mapping

from rfn_jax.core import errors, io
from rfn_jax.experiment import definitions, pinning

LAYOUT = 2  # of the first one, directories hold no layout.json


def is_bound(directory: os.PathLike | str) -> bool:
    """Whether the directory is the work directory of an experiment."""
    return (io.absolute(directory) / 'config.json').exists()


def check_layout(directory: os.PathLike | str) -> None:
    """Checks that a directory is free, or a work directory of this version.

    Raises:
      InputError: It is one of another version.
    """
    path = io.absolute(directory) / 'layout.json'
    found = io.read_json_object(path).get('version') if path.exists() else 1
    if is_bound(directory) and found != LAYOUT:
        raise errors.InputError(
            f'{directory} is a work directory of layout {found}, made by another version of rfn_jax, and this one has layout '
            f'{LAYOUT}: choose another --workdir'
        )


def last_config(directory: os.PathLike | str) -> dict:
    """The config that a work directory was last used with.

    Raises:
      InputError: There is none, it is damaged, or of another version.
    """
    config = io.read_json_object(io.absolute(directory) / 'config.json')
    check_layout(directory)
    return config


def check_last_config(directory: os.PathLike | str, config: Mapping) -> None:
    """Checks that a config is the one that a work directory was last used with: a report shows the results of that one only.

    Raises:
      InputError: It is another one; the message names what differs.
    """
    there, here = (dict(definitions.flat(c)) for c in (last_config(directory), pinning.pinned(config)))
    different = definitions.differences(there, here)
    if different:
        raise errors.InputError(
            f'{directory} was last used with another config: {"; ".join(different[:5])}; leave out --config, or run '
            'rfn-jax run with it'
        )


def write_config(directory: os.PathLike | str, config: dict) -> None:
    """Writes the config of a work directory, and the version of its layout.

    Raises:
      InputError: The directory cannot be written.
    """
    directory = io.absolute(directory)
    try:
        io.write_json(directory / 'layout.json', {'version': LAYOUT})
        io.write_json(directory / 'config.json', config)
    except errors.RunError as error:
        raise errors.InputError(f'cannot write to the work directory: {error}') from error

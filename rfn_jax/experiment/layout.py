"""The last config of a work directory, the environment that it was made in, and the version of its layout."""

import os
from collections.abc import Mapping

from etils import epath
from jax.sharding import Mesh

from rfn_jax.core import environment, errors, io, processes
from rfn_jax.experiment import definitions, pinning

LAYOUT = 2  # directories of layout 1 hold no layout.json


@processes.on_first
def is_workdir(directory: os.PathLike[str] | str) -> bool:
    """Whether a directory is the work directory of an experiment."""
    return (io.absolute(directory) / 'config.json').exists()


@processes.on_first
def check_layout(directory: os.PathLike[str] | str) -> None:
    """Checks that a directory is unused, or is a work directory of this layout.

    Raises:
      InputError: It is a work directory of another layout.
    """
    path = io.absolute(directory) / 'layout.json'
    try:
        version = io.read_json_object(path).get('version') if path.exists() else 1
    except errors.InputError as error:
        raise errors.InputError(
            f'{error}; if this version of rfn_jax made the directory, write {{"version": {LAYOUT}}} into that file; '
            'otherwise choose another --workdir'
        ) from error
    if is_workdir(directory) and version != LAYOUT:
        raise errors.InputError(
            f'{directory} is a work directory of layout {version}, made by another version of rfn_jax; this version uses '
            f'layout {LAYOUT}: choose another --workdir'
        )


@processes.on_first
def last_config(directory: os.PathLike[str] | str) -> dict:
    """The config that a work directory was last used with.

    Raises:
      InputError: The config is missing or damaged, or the directory has another layout.
    """
    try:
        config = io.read_json_object(io.absolute(directory) / 'config.json')
    except errors.InputError as error:
        raise errors.InputError(f'{error}; `rfn-jax run --config=FILE` writes it again') from error
    check_layout(directory)
    return config


@processes.on_first
def is_last_config(directory: os.PathLike[str] | str, config: Mapping) -> bool:
    """Whether a config is the one that a directory was last used with; false if that one is missing or damaged."""
    return _object(io.absolute(directory) / 'config.json') == config


@processes.on_first
def check_last_config(directory: os.PathLike[str] | str, config: Mapping) -> None:
    """Checks that a config is the one that a work directory was last used with: a report shows only the results of that one.

    Raises:
      InputError: The configs differ; the message says where.
    """
    before, now = (dict(definitions.flatten(c)) for c in (last_config(directory), pinning.pinned(config)))
    different = definitions.differences(before, now)
    if different:
        raise errors.InputError(
            f'{directory} was last used with another config: {"; ".join(different[:5])}; leave out --config, or '
            'use this config with rfn-jax run'
        )


@processes.on_first
def record_config(directory: os.PathLike[str] | str, config: Mapping, mesh: Mesh) -> None:
    """Records the config that a directory is used with, and the environment in `environment.json` if none is recorded.

    Args:
      directory: The work directory; created if it is missing.
      config: The config, with its files pinned.
      mesh: The devices.

    Raises:
      InputError: The directory cannot be written.
    """
    if not is_last_config(directory, config):
        write_config(directory, config)
    path = io.absolute(directory) / 'environment.json'
    if _object(path) is None:
        io.write_json(path, environment.describe(mesh))


def write_config(directory: os.PathLike[str] | str, config: Mapping) -> None:
    """Writes the config and the layout version of a work directory.

    Raises:
      InputError: The directory cannot be written.
    """
    directory = io.absolute(directory)
    try:
        io.write_json(directory / 'layout.json', {'version': LAYOUT})
        io.write_json(directory / 'config.json', config)
    except errors.RunError as error:
        raise errors.InputError(f'cannot write to the work directory: {error}') from error


def _object(path: epath.Path) -> dict | None:
    """The object that a JSON file holds; None if it is missing or damaged."""
    try:
        return io.read_json_object(path)
    except errors.InputError:
        return None

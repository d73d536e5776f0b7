"""Pins the files that a config names: absolute paths, with hashes of the contents."""

import json
from collections.abc import Mapping

from rfn_jax import data, storage
from rfn_jax.core import errors, io, processes
from rfn_jax.experiment import plan

SECTIONS = ('targets', 'validation_targets', 'surrogates')


def plain(config: Mapping) -> dict:
    """The config as JSON represents it: nested dictionaries, with lists in place of tuples.

    Raises:
      InputError: A value is not plain.
    """
    try:
        return json.loads(json.dumps(config))
    except (TypeError, ValueError) as error:
        raise errors.InputError(f'a config may hold only plain values: {error}') from error


@processes.on_first
def pinned(config: Mapping) -> dict:
    """The config, with the epochs and hashes of the network directories that it names, and the hash of its data file.

    Args:
      config: Nested mapping of plain values, such as `ConfigDict.to_dict()`; see `configs/digits.py`.

    Raises:
      InputError: A value is not plain, or a file cannot be read or does not have the hash that the config gives.
      RunError: A checkpoint is damaged.
    """
    config = plain(config)
    for section in SECTIONS:
        entries = config.get(section)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if plan.is_reference(entry):
                _pin(f'{section}.{name}', entry)
    if isinstance(config.get('data'), dict):
        config['data'] = data.pinned(config['data'])
    return config


def _pin(key: str, entry: dict) -> None:
    if not isinstance(entry['network'], str) or not entry['network']:
        raise errors.InputError(f'{key}.network must be a network directory, got {entry["network"]!r}')
    entry['network'] = str(io.absolute(entry['network']))
    try:
        store, entry['epoch'] = storage.open_checkpoint(entry['network'], entry.get('epoch'))
        sha256 = storage.read_network(entry['network']).sha256(store.digest(entry['epoch']))
    except errors.RunError as error:
        raise damaged_error(f'{key}.network', error) from error
    if entry.setdefault('sha256', sha256) != sha256:
        raise errors.InputError(
            f'{key}.sha256 is {entry["sha256"]!r}, but the network in {entry["network"]} has {sha256!r}: it was imported or '
            'trained again from something else'
        )


def damaged_error(what: str, error: errors.RunError) -> errors.RunError:
    """The error for a damaged imported network, with the remedy, for the caller to raise."""
    return errors.RunError(f'{what}: {error}; make that network again, or name another one in the config')


def variables_sha256(reference: plan.Reference) -> str:
    """The hash of the variables of a network directory, which does not depend on the dtype of the computation."""
    store, epoch = storage.open_checkpoint(reference.network, reference.epoch)
    return store.digest(epoch)

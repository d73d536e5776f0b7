"""A config whose files are pinned: absolute paths, with the hashes of what they hold."""

import json
from collections.abc import Mapping

from rfn_jax import data, storage
from rfn_jax.core import errors, io
from rfn_jax.experiment import plan

SECTIONS = ('targets', 'validation_targets', 'surrogates')


def plain(config: Mapping) -> dict:
    """The config as JSON holds it: nested dictionaries, with lists for tuples.

    Raises:
      InputError: A value is not plain.
    """
    try:
        return json.loads(json.dumps(config))
    except (TypeError, ValueError) as error:
        raise errors.InputError(f'a config may hold only plain values: {error}') from error


def pinned(config: Mapping) -> dict:
    """The config, with the epochs and hashes of the network directories that it names, and the hash of its data file.

    Args:
      config: Nested mapping of plain values, such as `ConfigDict.to_dict()`; see `configs/digits.py`.

    Raises:
      InputError: A value is not plain; or a file cannot be read, or is not the one whose hash the config has.
      RunError: A checkpoint is damaged.
    """
    config = plain(config)
    for section in SECTIONS:
        entries = config.get(section)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if plan.is_reference(entry):
                _pin(f'{section}.{name}', entry)
    if isinstance(config.get('data'), dict) and config['data'].get('name') == 'arrays':
        config['data'] = data.pinned(config['data'])
    return config


def _pin(key: str, entry: dict) -> None:
    if not isinstance(entry['network'], str) or not entry['network']:
        raise errors.InputError(f'{key}.network must be a network directory, got {entry["network"]!r}')
    entry['network'] = str(io.absolute(entry['network']))
    try:
        store, entry['epoch'] = storage.open_checkpoint(entry['network'], entry.get('epoch'))
        found = storage.read_network(entry['network']).sha256(store.digest(entry['epoch']))
    except errors.RunError as error:
        raise damaged(f'{key}.network', error) from error
    if entry.setdefault('sha256', found) != found:
        raise errors.InputError(
            f'{key}.sha256 is {entry["sha256"]!r}, and the network in {entry["network"]} has {found!r}: it was imported or '
            'trained again from something else'
        )


def damaged(what: str, error: errors.RunError) -> errors.RunError:
    """The error of a damaged network from elsewhere with the way out, to be raised by the caller."""
    return errors.RunError(f'{what}: {error}; make that network again, or name another one in the config')


def variables_sha256(reference: plan.Reference) -> str:
    """The hash of the variables of a network directory, whatever they are computed in."""
    store, epoch = storage.open_checkpoint(reference.network, reference.epoch)
    return store.digest(epoch)

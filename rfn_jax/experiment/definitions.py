"""What of a config decides on a network, by flat keys such as `optim.epochs`: a network that is there keeps it for life."""

from collections.abc import Iterator, Mapping
from typing import Any

# What differs between machines, or concerns other networks or the measuring only, and changes no bit of the weights.
# `shard_parameters` is not among it: sums over the devices are then rounded in another order.
FREE = {
    'data': ('data_dir', 'path', 'test_examples'),
    'optim': ('rho', 'steps_per_call', 'streaming'),  # rho is the value that trainings refer to
}


def of_training(sections: Any, entries: Mapping[str, object]) -> dict[str, object]:
    """The definition of a network that is trained.

    Args:
      sections: The sections of the config.
      entries: What is said of this network alone, by the keys of its entries.
    """
    kept = {name: bound(name, getattr(sections, name)) for name in FREE}
    return dict(flat({'seed': sections.seed, 'augmentation': sections.augmentation, **kept, **entries}))


def bound(section: str, values: Mapping[str, object]) -> dict[str, object]:
    """The values of the section `data` or `optim` that a network is held to: all but those of `FREE`."""
    return {key: value for key, value in values.items() if key not in FREE[section]}


def of_reference(key: str, start: Any) -> dict[str, object]:
    """The definition of a network directory that is used as it is: the hash of its architecture and variables."""
    return {f'{key}.sha256': start.sha256}


def flat(values: Mapping, prefix: str = '') -> Iterator[tuple[str, object]]:
    """The values of nested mappings, by their keys with dots between them."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def differences(there: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """What differs between two definitions, each with its key and both values."""
    absent = object()
    return [
        f'{key} is {there.get(key, "absent")!r} there and {here.get(key, "absent")!r} here'
        for key in sorted(there.keys() | here.keys())
        if there.get(key, absent) != here.get(key, absent)
    ]

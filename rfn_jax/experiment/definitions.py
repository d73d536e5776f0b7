"""The definition of a network: every config value that its weights depend on, by flat keys such as `optim.epochs`.

Once a network exists, its definition can no longer change.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rfn_jax import data

# Keys that are not part of a definition: they differ between machines, or concern only other networks or the measurement,
# and do not change what is trained. `shard_parameters` is not among them, because it changes the order in which sums over
# the devices are rounded. `seeds_at_once` changes rounding too, but like the number of devices it is chosen for what a
# machine can do, and a run goes on with another value.
CHANGEABLE = {
    'data': (*data.LOCATIONS, 'test_examples'),
    'optim': ('rho', 'seeds_at_once', 'steps_per_call', 'streaming', 'workers'),  # trainings contain the value of rho
}

# Options that are off by default, and their values then. A definition holds them only if they are on, so that networks made
# before an option existed, or from a config that does not name it, are recognized.
OFF = {
    'augmentation': {'random_resized_crop': None, 'rand_augment': None, 'mixup': 0.0, 'cutmix': 0.0},
    'optim': {'label_smoothing': 0.0, 'warmup_epochs': 0.0},
}


def of_trained_network(sections: Any, entries: Mapping[str, object]) -> dict[str, object]:
    """The definition of a network that is trained here.

    Args:
      sections: The sections of the config.
      entries: The entries that concern only this network, by their keys.
    """
    shared = {name: fixed_values(name, getattr(sections, name)) for name in CHANGEABLE}
    shared['augmentation'] = sections.augmentation
    for name, off in OFF.items():
        shared[name] = {key: value for key, value in shared[name].items() if key not in off or value != off[key]}
    return dict(flatten({'seed': sections.seed, **shared, **entries}))


def fixed_values(section: str, values: Mapping[str, object]) -> dict[str, object]:
    """The values of the section `data` or `optim` that belong to a definition: all but those in `CHANGEABLE`."""
    return {key: value for key, value in values.items() if key not in CHANGEABLE[section]}


def of_reference(key: str, start: Any) -> dict[str, object]:
    """The definition of an imported network: the hash of its architecture and variables."""
    return {f'{key}.sha256': start.sha256}


def flatten(values: Mapping, prefix: str = '') -> Iterator[tuple[str, object]]:
    """Yields the values of nested mappings, with their keys joined by dots."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """The differences between two definitions, each with its key and both values."""
    absent = object()
    return [
        f'{key} was {before.get(key, "absent")!r} and is now {now.get(key, "absent")!r}'
        for key in sorted(before.keys() | now.keys())
        if before.get(key, absent) != now.get(key, absent)
    ]

"""The structure of a config: its sections, and the entry of a target."""

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Sections:
    """The sections of a config; see `configs/digits.py` for their contents.

    Those with a default concern training, or the choice of the early-stopping epoch: a config whose surrogates are all
    attacked as they are (see `Surrogate`) does not need them.
    """

    name: str
    seed: int
    data: Mapping
    surrogates: Mapping
    targets: Mapping
    attacks: Mapping
    evaluation: Mapping
    seeds: int = 1
    augmentation: Mapping = dataclasses.field(default_factory=dict)
    optim: Mapping = dataclasses.field(default_factory=dict)
    trainings: Mapping = dataclasses.field(default_factory=dict)
    early_stopping: Mapping = dataclasses.field(default_factory=dict)
    baselines: Sequence[str] = ()
    validation_targets: Mapping = dataclasses.field(default_factory=dict)
    validation: Mapping = dataclasses.field(default_factory=dict)
    landscape: Mapping | None = None


def is_as_is(entry: object) -> bool:
    """Whether the entry of a surrogate names a network that is attacked as it is: `{'network': DIRECTORY, 'as_is': True}`."""
    return isinstance(entry, Mapping) and 'network' in entry and entry.get('as_is') is True


@dataclasses.dataclass(frozen=True)
class Target:
    """The entry of a target that is trained.

    Attributes:
      model: Name and options of the architecture.
      optim: Values that replace those of the config's `optim`.
    """

    model: Mapping
    optim: Mapping = dataclasses.field(default_factory=dict)

"""What a config holds: its sections, and an entry of its targets."""

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Sections:
    """The sections of a config, all of them needed; see `configs/digits.py` for what they hold."""

    name: str
    seed: int
    seeds: int
    data: Mapping
    augmentation: Mapping
    optim: Mapping
    trainings: Mapping
    early_stopping: Mapping
    baselines: Sequence[str]
    surrogates: Mapping
    targets: Mapping
    validation_targets: Mapping
    attacks: Mapping
    validation: Mapping
    evaluation: Mapping


@dataclasses.dataclass(frozen=True)
class Target:
    """A target in the config that is trained.

    Attributes:
      model: Name and options of the architecture.
      optim: What differs from the config's `optim`.
    """

    model: Mapping
    optim: Mapping = dataclasses.field(default_factory=dict)

"""The structure of a config: its sections, and the entry of a target."""

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Sections:
    """The sections of a config, all of them required; see `configs/digits.py` for their contents."""

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
    """The entry of a target that is trained.

    Attributes:
      model: Name and options of the architecture.
      optim: Values that replace those of the config's `optim`.
    """

    model: Mapping
    optim: Mapping = dataclasses.field(default_factory=dict)

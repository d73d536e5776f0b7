"""What an experiment consists of: its networks, attacks and sizes, typed."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import flax.linen as nn

from rfn_jax import attacks, models, training
from rfn_jax.core import errors


@dataclasses.dataclass(frozen=True)
class Reference:
    """A network directory: a target, or what the training of a surrogate starts from.

    Attributes:
      network: The directory: of an imported network, or of one in a work directory.
      epoch: Which of its checkpoints.
      sha256: Hash of architecture, normalization and variables.
    """

    network: str
    epoch: int
    sha256: str


def is_reference(entry: object) -> bool:
    """Whether an entry of a config names a network directory."""
    return isinstance(entry, Mapping) and 'network' in entry


@dataclasses.dataclass(frozen=True)
class Network:
    """One network: to train, or a target that is there already.

    Attributes:
      role: `'surrogate'`, `'target'` or `'validation_target'`.
      model: Name in the config.
      training: Name of the training of a surrogate; `'sgd'` for a target that is trained, else `'imported'`.
      seed: Number of the seed; 0 for a target.
      spec: Name and options of the architecture, as `models.MODELS` takes them; None if `start` says it.
      recipe: Its hyper-parameters; None for a target that is not trained.
      start: A network that is there: the target itself, or what the training of a surrogate starts from.
      definition: What of the config decides on it, by flat keys.
    """

    role: str
    model: str
    training: str
    seed: int
    spec: Mapping | None
    recipe: training.Recipe | None
    start: Reference | None
    definition: Mapping[str, object]

    @property
    def last_epoch(self) -> int:
        """The epoch of its last checkpoint."""
        return self.recipe.epochs if self.recipe else self.start.epoch

    @property
    def folder(self) -> str:
        """Its folder in the work directory."""
        name = f'{self.model}-{self.training}/seed{self.seed}' if self.role == 'surrogate' else self.model
        return f'{self.role}s/{name}'

    @property
    def title(self) -> str:
        """What to call it in messages."""
        return self.folder.replace('s/', ' ', 1).replace('/seed', ' seed ').replace('_', ' ')

    def about(self, epoch: int) -> dict[str, str | int]:
        """What `natural.csv` says of it after an epoch."""
        return {
            'model': self.model,
            'role': self.role,
            'training': self.training,
            'seed': self.seed,
            'epoch': epoch,
        }

    def module(self, num_classes: int) -> nn.Module:
        """The Flax module of an architecture that the config names."""
        return models.from_spec(self.spec, num_classes=num_classes)


@dataclasses.dataclass(frozen=True)
class Attack:
    """An attack of the config.

    Attributes:
      options: Its name and options, as plain values.
      attack: The attack.
    """

    options: Mapping
    attack: attacks.Attack


@dataclasses.dataclass(frozen=True)
class Validation:
    """What the early-stopping epoch is chosen with.

    Attributes:
      attack: The attack on the validation images: name and options.
      examples: How many eligible validation images, at most.
      every_epochs: Which epochs are measured: every so many, the first after each decay of the learning rate, where the
        paper finds the peak, and the last.
    """

    attack: Mapping
    examples: int
    every_epochs: int

    def epochs(self, recipe: training.Recipe) -> list[int]:
        """The epochs to measure of a training."""
        after_decays = [math.floor(epoch) + 1 for epoch in recipe.decay_epochs]
        return sorted({*range(self.every_epochs, recipe.epochs + 1, self.every_epochs), *after_decays, recipe.epochs})


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How the reported figures are measured.

    Attributes:
      examples: How many eligible test images, at most.
      batch_size: Examples in a batch of an attack or of predictions.
    """

    examples: int
    batch_size: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """An experiment, checked.

    Attributes:
      seed: Seed that every other one is derived from.
      data: Name and options of the data set.
      networks: What to train, and targets that are there already: targets, validation targets, then surrogates.
      early_stopping: For each early-stopped training, the training that it stops.
      baselines: The trainings that the others are compared with, early-stopped ones included.
      attacks: The attacks of the reported figures, by their name in the config.
      validation: What the early-stopping epoch is chosen with.
      validation_attack: Its attack.
      evaluation: How the reported figures are measured.
      config_sha256: Hash of the whole config.
    """

    seed: int
    data: Mapping
    networks: tuple[Network, ...]
    early_stopping: Mapping[str, str]
    baselines: tuple[str, ...]
    attacks: Mapping[str, Attack]
    validation: Validation
    validation_attack: Attack
    evaluation: Evaluation
    config_sha256: str

    def of_role(self, role: str) -> list[Network]:
        """The networks of one role, in the order of the config."""
        return [network for network in self.networks if network.role == role]

    def surrogate_models(self) -> list[str]:
        """The names of the surrogates, in the order of the config."""
        return list(dict.fromkeys(network.model for network in self.of_role('surrogate')))

    def trainings_of(self, network: Network) -> list[str]:
        """The trainings that a surrogate's checkpoints serve: its own, and those that stop it early."""
        return [network.training, *(name for name, of in self.early_stopping.items() if of == network.training)]

    def chosen(self, only: Sequence[str]) -> list[Network]:
        """The networks in some folders; all networks of the experiment if none are named.

        Raises:
          InputError: There is no such folder.
        """

        def lies_in(network, folder):
            return f'{network.folder}/'.startswith(f'{folder.rstrip("/")}/')

        for folder in only:
            if not any(lies_in(network, folder) for network in self.networks):
                raise errors.unknown_name('network', folder, [network.folder for network in self.networks])
        return [n for n in self.networks if not only or any(lies_in(n, folder) for folder in only)]


def reported_on_itself(validation_target: str, target: str) -> errors.InputError:
    """The error of a validation target that is a target, to be raised by the caller."""
    return errors.InputError(
        f'validation target {validation_target!r} is the target {target!r}: what is chosen on a target must not be '
        'reported on it'
    )

"""An experiment as typed values: its networks, its attacks and its sizes."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import flax.linen as nn

from rfn_jax import attacks, models, training
from rfn_jax.core import checks, errors


@dataclasses.dataclass(frozen=True)
class Reference:
    """A network directory that serves as a target, or that the training of a surrogate starts from.

    Attributes:
      network: The directory of an imported network, or of a network in a work directory.
      epoch: The epoch of the checkpoint.
      sha256: Hash of the architecture, normalization and variables.
    """

    network: str
    epoch: int
    sha256: str


def is_reference(entry: object) -> bool:
    """Whether an entry of a config names a network directory."""
    return isinstance(entry, Mapping) and 'network' in entry


@dataclasses.dataclass(frozen=True)
class Network:
    """One network: one to train, or an existing one.

    Attributes:
      role: `'surrogate'`, `'target'` or `'validation_target'`.
      model: Name in the config.
      training: Name of a surrogate's training; `'sgd'` for a target that is trained; `'imported'` for a network that is used
        as it is.
      seed: Number of the seed; 0 for a target.
      spec: Name and options of the architecture, as `models.MODELS` takes them; None if `start` determines it.
      recipe: Its hyperparameters; None for a network that is used as it is.
      start: An existing network: the one that is used as it is, or what the training of a surrogate starts from.
      definition: The config values that it depends on, by flat keys.
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
        """Its name in messages."""
        return self.folder.replace('s/', ' ', 1).replace('/seed', ' seed ').replace('_', ' ')

    def about(self, epoch: int) -> dict[str, str | int]:
        """The columns of `natural.csv` that describe it after an epoch."""
        return {
            'model': self.model,
            'role': self.role,
            'training': self.training,
            'seed': self.seed,
            'epoch': epoch,
        }

    def module(self, num_classes: int) -> nn.Module:
        """The Flax module of the architecture in `spec`."""
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
class ValidationSettings:
    """How the early-stopping epoch is chosen.

    Attributes:
      attack: The attack on the validation images: name and options.
      examples: Maximum number of eligible validation images.
      every_epochs: Interval between the measured epochs. The first epoch after each decay of the learning rate, where the
        paper finds the peak, and the last epoch are measured too.
    """

    attack: Mapping
    examples: int
    every_epochs: int

    def epochs(self, recipe: training.Recipe) -> list[int]:
        """The epochs of a training to measure."""
        after_decays = [math.floor(epoch) + 1 for epoch in recipe.decay_epochs]
        return sorted({*range(self.every_epochs, recipe.epochs + 1, self.every_epochs), *after_decays, recipe.epochs})


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """How the reported figures are measured.

    Attributes:
      examples: Maximum number of eligible test images.
      batch_size: Number of examples in a batch of an attack or of predictions.
      balanced: Whether the eligible test images are chosen class by class, instead of in the order of the data.
    """

    examples: int
    batch_size: int
    balanced: bool = False


@dataclasses.dataclass(frozen=True)
class LandscapeSettings:
    """How the landscape around the surrogates is measured.

    Attributes:
      examples: Number of training images for the loss, and of validation images for the alignment of gradients.
      batch_size: Number of images that are differentiated at once.
      every_epochs: Interval between the epochs; the last one is measured in any case, and by default it alone.
      rho: Radius of the ball in which sharpness is measured.
      steps: Number of Lanczos steps for the largest eigenvalue.
      samples: Number of random draws for the trace and for the average sharpness.
      search_steps: Number of steps of each search for the worst case.
    """

    examples: int = 500
    batch_size: int = 250
    every_epochs: int | None = None
    rho: float = 0.05
    steps: int = 20
    samples: int = 20
    search_steps: int = 10

    def __post_init__(self):
        for name in ('examples', 'batch_size', 'steps', 'search_steps'):
            checks.integer(f'landscape.{name}', getattr(self, name), at_least=1)
        checks.integer('landscape.samples', self.samples, at_least=2)  # for the standard errors
        if self.every_epochs is not None:
            checks.integer('landscape.every_epochs', self.every_epochs, at_least=1)
        checks.number('landscape.rho', self.rho, above=0)

    def epochs(self, recipe: training.Recipe) -> list[int]:
        """The epochs of a training to measure."""
        every = self.every_epochs or recipe.epochs
        return sorted({*range(every, recipe.epochs + 1, every), recipe.epochs})


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checked experiment.

    Attributes:
      seed: The seed that every other seed is derived from.
      data: Name and options of the data set.
      networks: The networks to train and the existing ones: targets, validation targets, then surrogates.
      early_stopping: For each early-stopped training, the training that it cuts short.
      baselines: The trainings that the others are compared with, including early-stopped ones.
      attacks: The attacks of the reported figures, by their names in the config.
      validation: How the early-stopping epoch is chosen; None if no surrogate is trained.
      validation_attack: The attack that it is chosen with; None if no surrogate is trained.
      evaluation: How the reported figures are measured.
      landscape: How the landscape around the surrogates is measured; None if it is not.
      config_sha256: Hash of the whole config.
    """

    seed: int
    data: Mapping
    networks: tuple[Network, ...]
    early_stopping: Mapping[str, str]
    baselines: tuple[str, ...]
    attacks: Mapping[str, Attack]
    validation: ValidationSettings | None
    validation_attack: Attack | None
    evaluation: EvaluationSettings
    landscape: LandscapeSettings | None
    config_sha256: str

    def of_role(self, role: str) -> list[Network]:
        """The networks with a role, in the order of the config."""
        return [network for network in self.networks if network.role == role]

    def trained_surrogates(self) -> list[Network]:
        """The surrogates that are trained, in the order of `networks`."""
        return [network for network in self.of_role('surrogate') if network.recipe]

    def trainings_of(self, network: Network) -> list[str]:
        """The trainings that use the checkpoints of a surrogate: its own, and those that stop it early."""
        return [
            network.training,
            *(name for name, stopped in self.early_stopping.items() if stopped == network.training),
        ]

    def networks_in(self, folders: Sequence[str]) -> list[Network]:
        """The networks in the given folders; all networks of the experiment if none are given.

        Raises:
          InputError: A folder holds no network of the experiment.
        """

        def is_in(network, folder):
            return f'{network.folder}/'.startswith(f'{folder.rstrip("/")}/')

        for folder in folders:
            if not any(is_in(network, folder) for network in self.networks):
                raise errors.unknown_name('network', folder, [network.folder for network in self.networks])
        return [n for n in self.networks if not folders or any(is_in(n, folder) for folder in folders)]


def reused_target_error(validation_target: str, target: str) -> errors.InputError:
    """The error for a validation target that is also a target, for the caller to raise."""
    return errors.InputError(
        f'validation target {validation_target!r} is the target {target!r}: choices made on a target must not be reported '
        'on it'
    )

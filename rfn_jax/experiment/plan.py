"""What an experiment consists of: read from its config, typed, and checked as a whole; no file is touched."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import flax.linen as nn

from rfn_jax import attacks, data, models, training
from rfn_jax.core import checks, digests, errors, options
from rfn_jax.experiment import definitions

NAME = re.compile(r'[A-Za-z0-9_.]+')
TARGET_TRAINING = {'name': 'sgd'}  # how targets that are trained here are trained


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


def read(config: Mapping) -> Plan:
    """Reads and checks a config.

    Args:
      config: Nested mapping of plain values whose files are pinned, as `pinning.pinned` gives it.

    Returns:
      The plan.

    Raises:
      InputError: A section, name or option is unknown or missing, or a value is out of its range.
    """
    sections = options.call('the config', Sections, config)
    for name in ('surrogates', 'targets', 'trainings', 'attacks', 'validation_targets', 'early_stopping'):
        if not config[name] and name != 'early_stopping':
            raise errors.InputError(f'{name} must have at least one entry')
        for entry in config[name]:
            if not NAME.fullmatch(entry):
                raise errors.InputError(f'the names in {name} may hold letters, digits, _ and . only, got {entry!r}')
    checks.integer('seeds', sections.seeds, at_least=1)
    checks.integer('seed', sections.seed, at_least=0, at_most=2**32 - 1)
    data.SOURCES[str(sections.data.get('name'))]  # an unknown name is told before anything is read
    _check_trainings(sections)
    for name, entry in sections.validation_targets.items():
        for target, other in sections.targets.items():
            if name == target or entry == other:
                raise reported_on_itself(name, target)
    options.call('augmentation', data.CropAndFlip, sections.augmentation)
    validation = options.call('validation', Validation, sections.validation)
    evaluation = options.call('evaluation', Evaluation, sections.evaluation)
    checks.integer('validation.examples', validation.examples, at_least=1)
    checks.integer('validation.every_epochs', validation.every_epochs, at_least=1)
    checks.integer('evaluation.examples', evaluation.examples, at_least=1)
    checks.integer('evaluation.batch_size', evaluation.batch_size, at_least=1)
    return Plan(
        seed=sections.seed,
        data=sections.data,
        networks=(*_targets(sections), *_surrogates(sections)),
        early_stopping=sections.early_stopping,
        baselines=tuple(sections.baselines),
        attacks={name: _attack(spec) for name, spec in sections.attacks.items()},
        validation=validation,
        validation_attack=_attack(validation.attack),
        evaluation=evaluation,
        config_sha256=digests.of_plain(config),
    )


def reported_on_itself(validation_target: str, target: str) -> errors.InputError:
    """The error of a validation target that is a target, to be raised by the caller."""
    return errors.InputError(
        f'validation target {validation_target!r} is the target {target!r}: what is chosen on a target must not be '
        'reported on it'
    )


def _check_trainings(sections: Sections) -> None:
    for name, of in sections.early_stopping.items():
        checks.one_of(f'training that {name!r} stops:', of, sections.trainings)
        if name in sections.trainings:
            raise errors.InputError(f'early_stopping has the name {name!r}, which is a training')
    for name in sections.baselines:
        checks.one_of('training in baselines:', name, [*sections.trainings, *sections.early_stopping])


def _attack(spec: Mapping) -> Attack:
    """The attack of a spec, whose examples can be stored."""
    attack = attacks.make_from(spec)
    attack.limits.check_levels()
    if attack.targeted:
        raise errors.InputError(f'attack {attack.name!r} is targeted; experiments have no target labels')
    return Attack(spec, attack)


def _targets(sections: Sections) -> list[Network]:
    networks = []
    for role, entries in (('target', sections.targets), ('validation_target', sections.validation_targets)):
        for name, entry in entries.items():
            what = f'{role} {name!r}'
            if is_reference(entry):
                start = options.call(what, Reference, entry)
                definition = definitions.of_reference(f'{role}s.{name}', start)
                networks.append(Network(role, name, 'imported', 0, None, None, start, definition))
                continue
            target = options.call(what, Target, entry)
            recipe = _recipe(sections, {**sections.optim, **target.optim}, TARGET_TRAINING)
            own = {'model': target.model, 'optim': definitions.bound('optim', target.optim)}
            definition = definitions.of_training(sections, {f'{role}s.{name}': own})
            networks.append(Network(role, name, 'sgd', 0, _checked(target.model), recipe, None, definition))
    return networks


def _surrogates(sections: Sections) -> list[Network]:
    # Baselines first, then by name (ml_collections sorts by name).
    names = sorted(sections.trainings, key=lambda name: (name not in sections.baselines, name))
    networks = []
    for name, entry in sections.surrogates.items():
        spec, start, keys = None, None, {}
        if is_reference(entry):
            start = options.call(f'surrogate {name!r}', Reference, entry)
            keys = definitions.of_reference(f'surrogates.{name}', start)
        else:
            spec, keys = _checked(entry), {f'surrogates.{name}': entry}
        for training_name in names:
            minimizer = sections.trainings[training_name]
            recipe = _recipe(sections, sections.optim, minimizer)
            definition = definitions.of_training(sections, {**keys, f'trainings.{training_name}': minimizer})
            networks += [
                Network('surrogate', name, training_name, seed, spec, recipe, start, definition)
                for seed in range(sections.seeds)
            ]
    return networks


def is_reference(entry: object) -> bool:
    """Whether an entry of a config names a network directory."""
    return isinstance(entry, Mapping) and 'network' in entry


@dataclasses.dataclass(frozen=True)
class Target:
    """A target in the config that is trained.

    Attributes:
      model: Name and options of the architecture.
      optim: What differs from the config's `optim`.
    """

    model: Mapping
    optim: Mapping = dataclasses.field(default_factory=dict)


def _checked(spec: Mapping) -> Mapping:
    """The spec, after its module was built once for some number of classes."""
    models.from_spec(spec, num_classes=2)
    return spec


def _recipe(sections: Sections, optim: Mapping, minimizer: Mapping) -> training.Recipe:
    values = {**optim, **sections.augmentation, 'minimiser': dict(minimizer)}
    values.pop('rho', None)  # the value that trainings refer to
    if 'group_size' in minimizer:  # of this training, not of its minimizer
        values['group_size'] = values['minimiser'].pop('group_size')
    return options.call('optim', training.Recipe, values)

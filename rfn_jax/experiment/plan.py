"""What an experiment consists of: read from its config, and checked as a whole before anything runs."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping

import flax.linen as nn

from rfn_jax import attacks, data, models, training
from rfn_jax.core import errors, options, workdir

NAME = re.compile(r'[A-Za-z0-9_.]+')


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
    surrogates: Mapping
    targets: Mapping
    validation_targets: Mapping
    attacks: Mapping
    validation: Mapping
    evaluation: Mapping


@dataclasses.dataclass(frozen=True)
class Network:
    """One network: to train, or a target whose weights were imported.

    Attributes:
      role: `'surrogate'`, `'target'` or `'validation_target'`.
      model: Name in the config.
      training: Name of the training of a surrogate; `'sgd'` for a target that is trained, else `'imported'`.
      seed: Number of the seed; 0 for a target.
      spec: Name and options of the architecture, as `models.MODELS` takes them.
      recipe: Its hyper-parameters; None for a target that is not trained.
      weights: Directory of imported weights: those of a target, or what the training of a surrogate starts from.
    """

    role: str
    model: str
    training: str
    seed: int
    spec: Mapping
    recipe: training.Recipe | None
    weights: str | None = None

    @property
    def last_epoch(self) -> int:
        """The epoch of its last checkpoint; 0 if it is not trained."""
        return self.recipe.epochs if self.recipe else 0

    @property
    def folder(self) -> str:
        """Its folder in the work directory."""
        name = f'{self.model}-{self.training}/seed{self.seed}' if self.role == 'surrogate' else self.model
        return f'{self.role}s/{name}'

    @property
    def title(self) -> str:
        """What to call it in messages."""
        return self.folder.replace('s/', ' ', 1).replace('/seed', ' seed ').replace('_', ' ')

    def module(self, num_classes: int) -> nn.Module:
        """The Flax module."""
        return models.from_spec(self.spec, num_classes=num_classes)


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
      config: The config as plain nested values.
      seed: Seed that every other one is derived from.
      networks: What to train or to import: targets, validation targets, then surrogates.
      early_stopping: For each early-stopped training, the training that it stops.
      attacks: The attacks of the reported figures, by their name in the config.
      validation: What the early-stopping epoch is chosen with.
      validation_attack: Its attack.
      evaluation: How the reported figures are measured.
    """

    config: Mapping
    seed: int
    networks: tuple[Network, ...]
    early_stopping: Mapping[str, str]
    attacks: Mapping[str, attacks.Attack]
    validation: Validation
    validation_attack: attacks.Attack
    evaluation: Evaluation

    def of_role(self, role: str) -> list[Network]:
        """The networks of one role, in the order of the config."""
        return [network for network in self.networks if network.role == role]

    def trainings_of(self, network: Network) -> list[str]:
        """The trainings that a surrogate's checkpoints serve: its own, and those that stop it early."""
        return [network.training, *(name for name, of in self.early_stopping.items() if of == network.training)]

    @property
    def baselines(self) -> list[str]:
        """The trainings that the others are compared with: plain SGD and whatever stops it early."""
        plain = [name for name, minimiser in self.config['trainings'].items() if minimiser == {'name': 'sgd'}]
        return plain + [name for name, stops in self.early_stopping.items() if stops in plain]

    def load_data(self) -> data.Splits:
        """Reads the data set.

        Raises:
          InputError: It is not there, or an option is wrong.
        """
        return data.SOURCES.make_from(self.config['data'])


def read(config: Mapping) -> Plan:
    """Reads and checks a config.

    Args:
      config: Nested mapping of plain values, such as `ConfigDict.to_dict()`; see `configs/digits.py`.

    Returns:
      The plan.

    Raises:
      InputError: A section, name or option is unknown or missing, or a value is out of its range.
    """
    config = workdir.plain(config)
    _pin_weights(config)
    if isinstance(config.get('data'), dict) and config['data'].get('name') == 'arrays':
        config['data'] = data.pinned(config['data'])
    sections = options.call('the config', Sections, config)
    for name in ('surrogates', 'targets', 'trainings', 'attacks', 'validation_targets', 'early_stopping'):
        if not config[name] and name != 'early_stopping':
            raise errors.InputError(f'{name} must have at least one entry')
        for entry in config[name]:
            if not NAME.fullmatch(entry):
                raise errors.InputError(f'the names in {name} may hold letters, digits, _ and . only, got {entry!r}')
    if sections.seeds < 1:
        raise errors.InputError(f'seeds must be at least 1, got {sections.seeds}')
    if not 0 <= sections.seed < 2**32:
        raise errors.InputError(f'seed must be 0 to 2**32 - 1, got {sections.seed}')
    data.SOURCES[str(sections.data.get('name'))]  # an unknown name is told before anything is read
    for name, entry in sections.validation_targets.items():
        for target, other in sections.targets.items():
            if (
                name == target
                or entry == other
                or (_is_imported(entry) and _is_imported(other) and _variables(entry) == _variables(other))
            ):
                raise errors.InputError(
                    f'validation target {name!r} is the target {target!r}: what is chosen on a target must not be reported '
                    'on it'
                )
    for name, of in sections.early_stopping.items():
        if of not in sections.trainings:
            raise errors.unknown_name(f'training that {name!r} stops:', of, sections.trainings)
        if name in sections.trainings:
            raise errors.InputError(f'early_stopping has the name {name!r}, which is a training')

    options.call('augmentation', data.CropAndFlip, sections.augmentation)
    validation = options.call('validation', Validation, sections.validation)
    evaluation = options.call('evaluation', Evaluation, sections.evaluation)
    if min(validation.examples, validation.every_epochs, evaluation.examples, evaluation.batch_size) < 1:
        raise errors.InputError(
            'validation.examples, validation.every_epochs, evaluation.examples and evaluation.batch_size must be at '
            f'least 1, got {validation.examples}, {validation.every_epochs}, {evaluation.examples}, '
            f'{evaluation.batch_size}'
        )
    return Plan(
        config=config,
        seed=sections.seed,
        networks=tuple(_networks(sections)),
        early_stopping=sections.early_stopping,
        attacks={name: _attack(spec) for name, spec in sections.attacks.items()},
        validation=validation,
        validation_attack=_attack(validation.attack),
        evaluation=evaluation,
    )


def _attack(spec: Mapping) -> attacks.Attack:
    """The attack of a spec, whose examples can be stored."""
    attack = attacks.make_from(spec)
    attack.limits.check_levels()
    if attack.targeted:
        raise errors.InputError(f'attack {attack.name!r} is targeted; experiments have no target labels')
    return attack


def _networks(sections: Sections) -> list[Network]:
    networks = []
    for role, entries in (('target', sections.targets), ('validation_target', sections.validation_targets)):
        for name, entry in entries.items():
            if _is_imported(entry):
                imported = options.call(f'{role} {name!r}', Imported, entry)
                networks.append(Network(role, name, 'imported', 0, imported.model, None, imported.weights))
                continue
            target = options.call(f'{role} {name!r}', Target, entry)
            recipe = _recipe(sections, {**sections.optim, **target.optim}, {'name': 'sgd'})
            networks.append(Network(role, name, 'sgd', 0, _checked(target.model), recipe))
    for name, entry in sections.surrogates.items():
        spec, weights = entry, None
        if _is_imported(entry):
            imported = options.call(f'surrogate {name!r}', Imported, entry)
            spec, weights = imported.model, imported.weights
        # Plain SGD first, then by name (ml_collections sorts by name).
        for training_name in sorted(sections.trainings, key=lambda t: (sections.trainings[t] != {'name': 'sgd'}, t)):
            recipe = _recipe(sections, sections.optim, sections.trainings[training_name])
            for seed in range(sections.seeds):
                networks.append(Network('surrogate', name, training_name, seed, _checked(spec), recipe, weights))
    return networks


def _pin_weights(config: dict) -> None:
    """Makes the paths of imported weights absolute, and adds their hashes: what is bound to a config is bound to them."""
    for section in ('targets', 'validation_targets', 'surrogates'):
        entries = config.get(section)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if _is_imported(entry):
                entry['weights'] = str(pathlib.Path(str(entry['weights'])).absolute())
                found = training.read_weights(entry['weights']).sha256
                if entry.setdefault('sha256', found) != found:
                    raise errors.InputError(
                        f'{section}.{name}.sha256 is {entry["sha256"]!r}, and the weights in {entry["weights"]} have '
                        f'{found!r}: they were imported again from something else'
                    )


def _variables(entry: Mapping) -> str:
    """The hash of the variables of imported weights, whatever they are computed in."""
    return training.read_weights(entry['weights']).variables_sha256


def _is_imported(entry: object) -> bool:
    return isinstance(entry, Mapping) and 'weights' in entry


@dataclasses.dataclass(frozen=True)
class Imported:
    """Imported weights in the config: a target, or what the training of a surrogate starts from.

    Attributes:
      weights: Their directory, as `rfn-jax import-weights` makes it.
      sha256: Their hash, of the model, the normalisation and the variables; added where a config leaves it out.
    """

    weights: str
    sha256: str

    @property
    def model(self) -> Mapping:
        """Name and options of the architecture."""
        return training.read_weights(self.weights).model


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


def _recipe(sections: Sections, optim: Mapping, minimiser: Mapping) -> training.Recipe:
    values = {**optim, **sections.augmentation, 'minimiser': dict(minimiser)}
    values.pop('rho', None)  # the value that trainings refer to
    if 'group_size' in minimiser:  # of this training, not of its minimiser
        values['group_size'] = values['minimiser'].pop('group_size')
    return options.call('optim', training.Recipe, values)

"""What an experiment consists of: read from its config, and checked as a whole before anything runs."""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn

from rfn_jax import attacks, data, models, training
from rfn_jax.core import errors, registry

SECTIONS = (
    'name', 'seed', 'seeds', 'data', 'augmentation', 'optim', 'trainings', 'early_stopping', 'surrogates', 'targets',
    'validation_targets', 'attacks', 'validation', 'evaluation',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Network:
    """One network to train.

    Attributes:
      role: `'surrogate'`, `'target'` or `'validation_target'`.
      model: Name in the config.
      training: Name of the training of a surrogate; `'sgd'` for a target.
      seed: Number of the seed; 0 for a target.
      spec: Name and options of the architecture, as `models.MODELS` takes them.
      recipe: Its hyper-parameters.
    """

    role: str
    model: str
    training: str
    seed: int
    spec: Mapping
    recipe: training.Recipe

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
        return models.MODELS.make(**{**self.spec, 'num_classes': num_classes})


@dataclasses.dataclass(frozen=True)
class Validation:
    """What the early-stopping epoch is chosen with.

    Attributes:
      attack: The attack on the validation images: name and options.
      examples: How many eligible validation images, at most.
      every_epochs: Which epochs are measured: every so many, and the last.
    """

    attack: Mapping
    examples: int
    every_epochs: int

    def epochs(self, last: int) -> list[int]:
        """The epochs to measure of a training that has `last`."""
        return sorted({*range(self.every_epochs, last + 1, self.every_epochs), last})


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
      networks: What to train: targets, validation targets, then surrogates.
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
        plain = [name for name, minimiser in self.config['trainings'].items() if minimiser['name'] == 'sgd']
        return plain + [name for name, stops in self.early_stopping.items() if stops in plain]

    def load_data(self) -> data.Splits:
        """Reads the data set.

        Raises:
          InputError: It is not there, or an option is wrong.
        """
        return data.SOURCES.make(**self.config['data'])


def read(config: Mapping) -> Plan:
    """Reads and checks a config.

    Args:
      config: Nested mapping of plain values, such as `ConfigDict.to_dict()`; see `configs/digits.py`.

    Returns:
      The plan.

    Raises:
      InputError: A section, name or option is unknown or missing, or a value is out of its range.
    """
    for section in config:
        if section not in SECTIONS:
            raise errors.unknown_name('config section', section, SECTIONS)
    missing = [section for section in SECTIONS if section not in config]
    if missing:
        raise errors.InputError(f'the config needs {", ".join(missing)}')
    for name in ('surrogates', 'targets', 'trainings', 'attacks', 'validation_targets'):
        if not config[name]:
            raise errors.InputError(f'{name} must have at least one entry')
    if config['seeds'] < 1:
        raise errors.InputError(f'seeds must be at least 1, got {config["seeds"]}')
    _check_data(config['data'])
    for name, of in config['early_stopping'].items():
        if of not in config['trainings']:
            raise errors.unknown_name(f'training that {name!r} stops:', of, config['trainings'])
        if name in config['trainings']:
            raise errors.InputError(f'early_stopping has the name {name!r}, which is a training')

    validation = registry.call('validation', Validation, config['validation'])
    evaluation = registry.call('evaluation', Evaluation, config['evaluation'])
    if min(validation.examples, validation.every_epochs, evaluation.examples, evaluation.batch_size) < 1:
        raise errors.InputError(
            'validation.examples, validation.every_epochs, evaluation.examples and evaluation.batch_size must be at least '
            f'1, got {validation.examples}, {validation.every_epochs}, {evaluation.examples}, {evaluation.batch_size}'
        )
    return Plan(
        config=config,
        seed=config['seed'],
        networks=tuple(_networks(config)),
        early_stopping=config['early_stopping'],
        attacks={name: attacks.ATTACKS.make(**options) for name, options in config['attacks'].items()},
        validation=validation,
        validation_attack=attacks.ATTACKS.make(**validation.attack),
        evaluation=evaluation,
    )


def _check_data(options: Mapping) -> None:
    """Checks the name of the data set before anything is read."""
    if 'name' not in options:
        raise errors.InputError('data needs name')
    data.SOURCES[options['name']]


def _networks(config: Mapping) -> list[Network]:
    networks = []
    for role in ('target', 'validation_target'):
        for name, entry in config[f'{role}s'].items():
            entry = registry.call(f'{role} {name!r}', _target, entry)
            recipe = _recipe(config, {**config['optim'], **entry['optim']}, {'name': 'sgd'})
            networks.append(Network(role, name, 'sgd', 0, _checked(entry['model']), recipe))
    for name, spec in config['surrogates'].items():
        # Plain SGD first, then in the order of the config (ml_collections sorts by name).
        for training_name, minimiser in sorted(config['trainings'].items(), key=lambda t: t[1].get('name') != 'sgd'):
            recipe = _recipe(config, config['optim'], minimiser)
            for seed in range(config['seeds']):
                networks.append(Network('surrogate', name, training_name, seed, _checked(spec), recipe))
    return networks


def _target(model: Mapping, optim: Mapping = {}) -> Mapping:
    return {'model': model, 'optim': optim}


def _checked(spec: Mapping) -> Mapping:
    """The spec, after its module was built once for any number of classes."""
    if 'name' not in spec:
        raise errors.InputError(f'a model needs name, got {dict(spec)}')
    models.MODELS.make(**{**spec, 'num_classes': 2})
    return spec


def _recipe(config: Mapping, optim: Mapping, minimiser: Mapping) -> training.Recipe:
    options = {**optim, **config['augmentation'], 'minimiser': minimiser}
    options.pop('rho', None)  # the value that trainings refer to
    return registry.call('optim', training.Recipe, options)

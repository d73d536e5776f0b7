"""From a config to a plan: every value is checked, and no file is read."""

import re
from collections.abc import Mapping

from rfn_jax import attacks, data
from rfn_jax.core import checks, digests, errors, options
from rfn_jax.experiment import plan, roles
from rfn_jax.experiment import sections as sections_lib

NAME = re.compile(r'(?!\.+$)[A-Za-z0-9_.]+')


def read(config: Mapping) -> plan.Plan:
    """Reads and checks a config.

    Args:
      config: Nested mapping of plain values with pinned files, as `pinning.pinned` returns it.

    Returns:
      The plan.

    Raises:
      InputError: A section, name or option is unknown or missing, or a value is out of its range.
    """
    sections = options.call('the config', sections_lib.Sections, config)
    trains = not all(map(sections_lib.is_as_is, sections.surrogates.values()))
    needed = ('surrogates', 'targets', 'attacks', *(('trainings', 'validation_targets') if trains else ()))
    for name in ('surrogates', 'targets', 'trainings', 'attacks', 'validation_targets', 'early_stopping'):
        if not getattr(sections, name) and name in needed:
            raise errors.InputError(f'{name} must have at least one entry')
        for entry in getattr(sections, name):
            if not NAME.fullmatch(entry):
                raise errors.InputError(
                    f'the names in {name} may contain only letters, digits, _ and ., and not dots alone, got {entry!r}'
                )
    checks.integer('seeds', sections.seeds, at_least=1)
    checks.integer('seed', sections.seed, at_least=0, at_most=2**32 - 1)
    data.SOURCES[str(sections.data.get('name'))]  # raises for an unknown name before anything is read
    _check_trainings(sections)
    for name, entry in sections.validation_targets.items():
        for target, other in sections.targets.items():
            if name == target or entry == other:
                raise plan.reused_target_error(name, target)
    options.call('augmentation', data.Augmentation, sections.augmentation)
    validation = None
    if trains or sections.validation:
        validation = options.call('validation', plan.ValidationSettings, sections.validation)
        checks.integer('validation.examples', validation.examples, at_least=1)
        checks.integer('validation.every_epochs', validation.every_epochs, at_least=1)
    evaluation = options.call('evaluation', plan.EvaluationSettings, sections.evaluation)
    checks.integer('evaluation.examples', evaluation.examples, at_least=1)
    checks.integer('evaluation.batch_size', evaluation.batch_size, at_least=1)
    return plan.Plan(
        seed=sections.seed,
        data=sections.data,
        networks=(*roles.targets(sections), *roles.surrogates(sections)),
        early_stopping=sections.early_stopping,
        baselines=tuple(sections.baselines),
        attacks={name: _attack(spec) for name, spec in sections.attacks.items()},
        validation=validation,
        validation_attack=validation and _attack(validation.attack),
        evaluation=evaluation,
        landscape=None
        if sections.landscape is None
        else options.call('landscape', plan.LandscapeSettings, sections.landscape),
        config_sha256=digests.of_measured(config),
    )


def _check_trainings(sections: sections_lib.Sections) -> None:
    for name, stopped in sections.early_stopping.items():
        checks.one_of(f'training that {name!r} stops:', stopped, sections.trainings)
        if name in sections.trainings:
            raise errors.InputError(f'early_stopping uses the name {name!r}, which is already a training')
    for name in sections.baselines:
        checks.one_of('training in baselines:', name, [*sections.trainings, *sections.early_stopping])


def _attack(spec: Mapping) -> plan.Attack:
    """The attack of a spec, checked to be untargeted and to have a budget that uint8 images can represent."""
    attack = attacks.make_from(spec)
    attack.limits.check_levels()
    if attack.targeted:
        raise errors.InputError(f'attack {attack.name!r} is targeted; experiments have no target labels')
    return plan.Attack(spec, attack)

"""The networks of a config: its targets, validation targets and surrogates, each with its recipe and its definition."""

from collections.abc import Mapping

from rfn_jax import data, models, training
from rfn_jax.core import errors, options
from rfn_jax.experiment import definitions, plan
from rfn_jax.experiment import sections as sections_lib

TARGET_TRAINING = {'name': 'sgd'}  # how targets are trained, unless they are imported


def targets(sections: sections_lib.Sections) -> list[plan.Network]:
    """The targets, then the validation targets, in the order of the config.

    Raises:
      InputError: An option is unknown, missing, or out of its range.
    """
    networks = []
    for role, entries in (('target', sections.targets), ('validation_target', sections.validation_targets)):
        for name, entry in entries.items():
            what = f'{role} {name!r}'
            if plan.is_reference(entry):
                start = options.call(what, plan.Reference, entry)
                definition = definitions.of_reference(f'{role}s.{name}', start)
                networks.append(plan.Network(role, name, 'imported', 0, None, None, start, definition))
                continue
            target = options.call(what, sections_lib.Target, entry)
            if 'rho' in target.optim:
                raise errors.InputError(f'{what} is trained with SGD, which has no rho: remove it from its optim')
            recipe = _recipe(sections, {**sections.optim, **target.optim}, TARGET_TRAINING)
            own = {'model': target.model, 'optim': definitions.fixed_values('optim', target.optim)}
            definition = definitions.of_trained_network(sections, {f'{role}s.{name}': own})
            networks.append(plan.Network(role, name, 'sgd', 0, _checked(target.model), recipe, None, definition))
    return networks


def surrogates(sections: sections_lib.Sections) -> list[plan.Network]:
    """The surrogates, ordered by model, training and seed; trainings that are baselines come first, the others by name.

    Raises:
      InputError: An option is unknown, missing, or out of its range.
    """
    names = sorted(sections.trainings, key=lambda name: (name not in sections.baselines, name))
    networks = []
    for name, entry in sections.surrogates.items():
        spec, start, keys = None, None, {}
        if plan.is_reference(entry):
            as_is = sections_lib.is_as_is(entry)
            entry = {key: value for key, value in entry.items() if key != 'as_is' or not isinstance(value, bool)}
            start = options.call(f'surrogate {name!r}', plan.Reference, entry)
            keys = definitions.of_reference(f'surrogates.{name}', start)
            if as_is:
                networks.append(plan.Network('surrogate', name, 'imported', 0, None, None, start, keys))
                continue
        else:
            spec, keys = _checked(entry), {f'surrogates.{name}': entry}
        for training_name in names:
            minimizer = sections.trainings[training_name]
            recipe = _recipe(sections, sections.optim, minimizer)
            definition = definitions.of_trained_network(sections, {**keys, f'trainings.{training_name}': minimizer})
            networks += [
                plan.Network('surrogate', name, training_name, seed, spec, recipe, start, definition)
                for seed in range(sections.seeds)
            ]
    return networks


def _checked(spec: Mapping) -> Mapping:
    """The spec, checked by building its module once for an arbitrary number of classes."""
    models.from_spec(spec, num_classes=2)
    return spec


def _recipe(sections: sections_lib.Sections, optim: Mapping, minimizer: Mapping) -> training.Recipe:
    augmentation = options.call('augmentation', data.Augmentation, sections.augmentation)
    values = {**optim, 'augmentation': augmentation, 'minimizer': dict(minimizer)}
    values.pop('rho', None)  # trainings refer to it, and contain its value
    if 'group_size' in minimizer:  # an option of the training, not of its minimizer
        values['group_size'] = values['minimizer'].pop('group_size')
    return options.call('optim', training.Recipe, values)

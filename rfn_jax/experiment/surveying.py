"""Stage 5: the landscape of the loss around the surrogates, on training images; it takes no part in any choice."""

import dataclasses
import math

import jax
import numpy as np
from etils import epath

from rfn_jax import data
from rfn_jax import landscape as landscape_lib
from rfn_jax.core import errors, io, preemption, processes, rng, tables
from rfn_jax.experiment import inputs as inputs_lib
from rfn_jax.experiment import plan as plan_lib
from rfn_jax.experiment import workdir as workdir_lib

TABLE = 'landscape.csv'


def landscape(plan: plan_lib.Plan, workdir: workdir_lib.Workdir) -> None:
    """Writes `landscape.csv`: curvature, sharpness and the alignment of gradients, for each trained surrogate and epoch.

    The figures of each surrogate are kept in `results/landscape/`, so an interrupted run continues with the next surrogate.

    Raises:
      InputError: The config has no section `landscape`, or a network has not been trained.
      RunError: A checkpoint cannot be read, or a file cannot be written.
    """
    if plan.landscape is None:
        raise errors.InputError("the config has no section landscape; add one, such as landscape={'examples': 500}")
    inputs = inputs_lib.Inputs(plan, workdir)
    surrogates = plan.trained_surrogates()
    if not surrogates:
        raise errors.InputError('the landscape is measured around surrogates that are trained here, and there are none')
    origins = [_origin(inputs, network) for network in surrogates]
    workdir.record_config()
    rows = []
    for network, origin in zip(surrogates, origins, strict=True):
        path = workdir.result(f'landscape/{network.model}-{network.training}-seed{network.seed}.json')
        if _read(path).get('origin') != origin:
            found = [dataclasses.asdict(row) for row in _survey(inputs, network)]
            processes.on_first(io.write_json)(path, {'origin': origin, 'rows': found})
        rows += [landscape_lib.LandscapeRow(**row) for row in _read(path)['rows']]
    content = tables.content(landscape_lib.LandscapeRow, rows)
    processes.on_first(io.write_bytes)(workdir.result(TABLE), content)


@processes.on_first
def _read(path: epath.Path) -> dict:
    """The figures of a surrogate; empty if the file is missing or damaged."""
    try:
        figures = io.read_json_object(path)
        rows = [landscape_lib.LandscapeRow(**row) for row in figures['rows']]
        complete = [row.epoch for row in rows] == figures['origin']['epochs']
    except (errors.InputError, KeyError, TypeError):
        return {}
    return figures if complete and not any(map(_wrong_figures, rows)) else {}


def _wrong_figures(row: landscape_lib.LandscapeRow) -> list[str]:
    """The names of the columns that should hold a finite number and do not."""
    columns = [field.name for field in dataclasses.fields(row) if field.type in (int, float)]
    values = {name: getattr(row, name) for name in columns}
    return [name for name, v in values.items() if type(v) not in (int, float) or not math.isfinite(v)]


def _origin(inputs: inputs_lib.Inputs, surrogate: plan_lib.Network) -> dict:
    """Everything that the figures of a surrogate depend on."""
    plan = inputs.plan
    networks = [surrogate, *plan.of_role('validation_target')]
    return {
        'weights': {network.folder: inputs.digest(network, network.last_epoch) for network in networks},
        'settings': dataclasses.asdict(plan.landscape),
        'epochs': plan.landscape.epochs(surrogate.recipe),
        'seed': plan.seed,
        'sources': [[split.source, len(split)] for split in (inputs.splits.train, inputs.splits.validation)],
    }


def _survey(inputs: inputs_lib.Inputs, network: plan_lib.Network) -> list[landscape_lib.LandscapeRow]:
    """The rows of one surrogate."""
    plan, workdir, splits = inputs.plan, inputs.workdir, inputs.splits
    settings = plan.landscape
    epochs = settings.epochs(network.recipe)
    train, validation = (_first(inputs, split, settings.examples) for split in (splits.train, splits.validation))
    classifiers = workdir.classifiers(network, epochs, splits.info.image_shape)
    key = rng.key_for(plan.seed, 'landscape')  # the same for all networks, which are compared
    batching = {'batch_size': settings.batch_size, 'mesh': workdir.mesh}
    rows = []
    with workdir.console.task(f'landscape {network.title}', len(epochs)) as advance:
        for epoch, classifier in zip(epochs, classifiers, strict=True):
            preemption.check()
            loss, params = landscape_lib.of_classifier(classifier, train, **batching)
            steps = min(settings.steps, sum(leaf.size for leaf in jax.tree.leaves(params)))
            top = landscape_lib.eigenvalues(loss, params, key, steps=steps)
            trace = landscape_lib.trace(loss, params, key, samples=settings.samples)
            ball = {'rho': settings.rho}
            worst = landscape_lib.worst_case_sharpness(loss, params, key, **ball, steps=settings.search_steps)
            average = landscape_lib.average_sharpness(loss, params, key, **ball, samples=settings.samples)
            cosines = landscape_lib.input_gradient_cosines(
                classifier, inputs.validation_targets, validation, **batching
            )
            row = landscape_lib.LandscapeRow(
                surrogate=network.model,
                training=network.training,
                seed=network.seed,
                epoch=epoch,
                loss=landscape_lib.value(loss, params),
                top_eigenvalue=float(top.values[0]),
                top_eigenvalue_error=float(top.errors[0]),
                trace=trace.mean,
                trace_standard_error=trace.standard_error,
                rho=settings.rho,
                worst_case_sharpness=worst,
                average_sharpness=average.mean,
                average_sharpness_standard_error=average.standard_error,
                gradient_cosine=float(np.mean(list(cosines.values()))),
                n=len(train),
            )
            if wrong := _wrong_figures(row):
                raise errors.RunError(
                    f'{wrong[0]} of {network.title} after epoch {epoch} is not finite; use a smaller landscape.rho than '
                    f'{settings.rho:g}'
                )
            rows.append(row)
            advance(top_eigenvalue=row.top_eigenvalue, worst_case=worst, cosine=row.gradient_cosine)
    return rows


def _first(inputs: inputs_lib.Inputs, source: data.Source, at_most: int) -> data.ImageDataset:
    return inputs.read(source, np.arange(min(at_most, len(source))))

"""Stage 2: measure the checkpoints on validation images and validation targets, and choose the early-stopping epochs."""

import dataclasses

import numpy as np
from etils import epath

from rfn_jax import data, training, transfer
from rfn_jax.core import errors, io, preemption, processes, rng, tables
from rfn_jax.experiment import inputs as inputs_lib
from rfn_jax.experiment import plan as plan_lib
from rfn_jax.experiment import workdir as workdir_lib

EARLY_STOPPING = 'early_stopping.csv'
TABLES = ('transfer_validation.csv', 'natural_validation.csv', EARLY_STOPPING)


def select(plan: plan_lib.Plan, workdir: workdir_lib.Workdir) -> None:
    """Measures surrogates epoch by epoch, on validation images and validation targets only.

    Writes `transfer_validation.csv`, `natural_validation.csv` and `early_stopping.csv`, which the later stages read. The
    figures of each surrogate are kept in `results/validation/`, so an interrupted run continues with the next surrogate.

    Raises:
      InputError: A network has not been trained, or no validation image is eligible.
      RunError: A checkpoint cannot be read, or a file cannot be written.
    """
    inputs = inputs_lib.Inputs(plan, workdir)
    surrogates = plan.trained_surrogates()
    origins = [_origin(inputs, network) for network in surrogates]
    paths = [_path(workdir, network) for network in surrogates]
    workdir.record_config()
    workdir.define_imported(plan)
    missing = [
        (network, origin, path)
        for network, origin, path in zip(surrogates, origins, paths, strict=True)
        if _read_figures(path).get('origin') != origin
    ]
    if missing:
        positions = inputs.eligible(inputs.validation_targets, inputs.validation, plan.validation.examples)
        examples = inputs.read(inputs.validation, positions)
        for network, origin, path in missing:
            processes.on_first(io.write_json)(path, {'origin': origin, **_measure(inputs, network, examples)})

    for name, content in _tables(plan, [_read_figures(path) for path in paths]).items():
        processes.on_first(io.write_bytes)(workdir.result(name), content)


def stopping_epochs(inputs: inputs_lib.Inputs) -> dict[tuple[str, str], int]:
    """For each surrogate and each early-stopped training, the epoch that `select` chose.

    Raises:
      InputError: A network has not been trained; no epoch was chosen, or the choice was made with other networks or other
        validation settings; or a table of `select` does not match its figures.
    """
    plan, workdir = inputs.plan, inputs.workdir
    surrogates = plan.trained_surrogates()
    origins = [_origin(inputs, network) for network in surrogates]
    _check_chosen(workdir)
    all_figures = [_read_figures(_path(workdir, network)) for network in surrogates]
    if [figures.get('origin') for figures in all_figures] != origins:
        raise errors.InputError(
            f'{workdir.result(EARLY_STOPPING)} was made with other networks or other validation settings; choose again '
            '(rfn-jax select)'
        )
    _check_tables(workdir, _tables(plan, all_figures))
    return {(row.surrogate, row.training): row.epoch for row in _early_stopping_rows(plan, all_figures)}


@processes.on_first
def _check_chosen(workdir: workdir_lib.Workdir) -> None:
    if not workdir.result(EARLY_STOPPING).exists():
        raise errors.InputError(
            f'{workdir.result(EARLY_STOPPING)} is missing; choose the early-stopping epochs first (rfn-jax select)'
        )


@processes.on_first
def _check_tables(workdir: workdir_lib.Workdir, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        path = workdir.result(name)
        if not path.exists() or io.read_bytes(path) != content:
            raise errors.InputError(
                f'{path} is missing or does not match this config and the figures in {workdir.result("validation")}; choose '
                'again (rfn-jax select)'
            )


def _tables(plan: plan_lib.Plan, all_figures: list[dict]) -> dict[str, bytes]:
    """The contents of the result tables by file name: the figures of all surrogates, and the epochs chosen from them."""
    measured = [_rows(figures) for figures in all_figures]
    contents = (
        tables.content(transfer.TransferRow, [row for rows, _ in measured for row in rows]),
        tables.content(transfer.NaturalRow, [row for _, rows in measured for row in rows]),
        tables.content(transfer.EarlyStoppingRow, _early_stopping_rows(plan, all_figures)),
    )
    return dict(zip(TABLES, contents, strict=True))


def _early_stopping_rows(plan: plan_lib.Plan, all_figures: list[dict]) -> list[transfer.EarlyStoppingRow]:
    """The early-stopping epoch of each surrogate and early-stopped training."""
    rows = [row for figures in all_figures for row in _rows(figures)[0]]
    return [
        transfer.EarlyStoppingRow(surrogate, name, stops, *transfer.best_epoch(rows, surrogate, stops))
        for surrogate in dict.fromkeys(network.model for network in plan.trained_surrogates())
        for name, stops in plan.early_stopping.items()
    ]


def _path(workdir: workdir_lib.Workdir, network: plan_lib.Network) -> epath.Path:
    return workdir.result(f'validation/{network.model}-{network.training}-seed{network.seed}.json')


@processes.on_first
def _read_figures(path: epath.Path) -> dict:
    """The validation figures of a surrogate; empty if the file is missing or damaged."""
    try:
        figures = io.read_json_object(path)
        _rows(figures)
    except (errors.InputError, KeyError, TypeError):
        return {}
    return figures


def _rows(figures: dict) -> tuple[list[transfer.TransferRow], list[transfer.NaturalRow]]:
    """The validation figures of a surrogate as rows of the tables."""
    return (
        [transfer.TransferRow(**row) for row in figures['transfer']],
        [transfer.NaturalRow(**row) for row in figures['natural']],
    )


def _origin(inputs: inputs_lib.Inputs, surrogate: plan_lib.Network) -> dict:
    """Everything that the validation figures of a surrogate depend on."""
    plan = inputs.plan
    networks = [surrogate, *plan.of_role('validation_target')]
    return {
        'weights': {network.folder: inputs.digest(network, network.last_epoch) for network in networks},
        'epochs': plan.validation.epochs(surrogate.recipe),
        'attack': plan.validation_attack.options,
        'examples': plan.validation.examples,
        'source': [inputs.splits.validation.source, len(inputs.splits.validation)],
    }


def _measure(
    inputs: inputs_lib.Inputs, network: plan_lib.Network, examples: data.ImageDataset
) -> dict[str, list[dict]]:
    """Rows of transfer and of natural accuracy for the epochs of one surrogate."""
    plan, workdir = inputs.plan, inputs.workdir
    attack = plan.validation_attack.attack
    key = rng.key_for(plan.seed, f'validate {network.model}', network.seed)
    epochs = plan.validation.epochs(network.recipe)
    classifiers = workdir.classifiers(network, epochs, inputs.splits.info.image_shape)
    pool = None
    if attack.needs_pool:
        pool = inputs.read(inputs.validation, transfer.pool_positions(inputs.validation.ids))
    rows, natural = [], []
    with workdir.console.task(f'validate {network.title}', len(epochs)) as advance:
        for epoch, surrogate in zip(epochs, classifiers, strict=True):
            preemption.check()
            images = transfer.craft_images(attack, surrogate, examples, key, **inputs.batching, pool=pool)
            crafted = transfer.Crafted(
                surrogate=network.model,
                training=network.training,
                seed=network.seed,
                epoch=epoch,
                attack=attack.name,
                eps=attack.limits.eps,
                norm=attack.limits.norm,
            )
            evaluations = {'gradient_evaluations': attack.gradient_evaluations}
            success = transfer.successes(inputs.validation_targets, images, examples, **inputs.batching)
            rows += [
                transfer.TransferRow.of(crafted, name, transfer.BLACK_BOX, s, **evaluations)
                for name, s in success.items()
            ]
            own = transfer.successes({network.model: surrogate}, images, examples, **inputs.batching)[network.model]
            rows.append(transfer.TransferRow.of(crafted, network.model, transfer.WHITE_BOX, own, **evaluations))
            predicted = training.predict_all({'': surrogate}, inputs.validation, **inputs.batching)
            row = transfer.NaturalRow.of(predicted.correct(''), predicted.in_top5[''], **network.about(epoch))
            natural.append(row)
            advance(success=float(np.mean([s.mean() for s in success.values()])), accuracy=row.accuracy)
    return {'transfer': list(map(dataclasses.asdict, rows)), 'natural': list(map(dataclasses.asdict, natural))}

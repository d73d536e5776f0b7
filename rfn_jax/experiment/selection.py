"""Stage 2: measure the checkpoints on validation images and validation targets, and choose the early-stopping epochs."""

import dataclasses

import numpy as np
from etils import epath

from rfn_jax import data, training, transfer
from rfn_jax.core import errors, io, rng, tables
from rfn_jax.experiment import inputs as inputs_lib
from rfn_jax.experiment import plan as plan_lib
from rfn_jax.experiment import workdir as workdir_lib

CHOSEN = 'early_stopping.csv'
TABLES = ('transfer_validation.csv', 'natural_validation.csv', CHOSEN)


def select(plan: plan_lib.Plan, workdir: workdir_lib.Workdir) -> None:
    """Measures surrogates epoch by epoch, on validation images and validation targets only.

    Writes `transfer_validation.csv`, `natural_validation.csv` and `early_stopping.csv`, which the later stages read. What was
    measured of a surrogate is kept in `results/validation/`, so a stopped run goes on with the next surrogate.

    Raises:
      InputError: Networks are not trained, or no validation image is eligible.
      RunError: A checkpoint cannot be read, or a file not written.
    """
    inputs = inputs_lib.Inputs(plan, workdir)
    surrogates = plan.of_role('surrogate')
    origins = [_origin(inputs, network) for network in surrogates]
    paths = [_path(workdir, network) for network in surrogates]
    workdir.bind()
    workdir.define_references(plan)
    missing = [
        (network, origin, path)
        for network, origin, path in zip(surrogates, origins, paths, strict=True)
        if _read(path).get('origin') != origin
    ]
    if missing:
        natural = transfer.predictions(inputs.validation_targets, inputs.validation, **inputs.batching)
        examples = transfer.eligible_examples(inputs.validation, natural, at_most=plan.validation.examples)
        for network, origin, path in missing:
            io.write_json(path, {'origin': origin, **_measure(inputs, network, examples)})

    for name, content in _tables(plan, [io.read_json_object(path) for path in paths]).items():
        io.write_bytes(workdir.result(name), content)


def stops(inputs: inputs_lib.Inputs) -> dict[tuple[str, str], int]:
    """The epoch that each surrogate and early-stopped training uses, as `select` chose it.

    Raises:
      InputError: Networks are not trained; or no epoch was chosen, or with other networks or another validation; or a table
        of `select` is not the one that its figures give.
    """
    plan, workdir = inputs.plan, inputs.workdir
    surrogates = plan.of_role('surrogate')
    origins = [_origin(inputs, network) for network in surrogates]
    if not workdir.result(CHOSEN).exists():
        raise errors.InputError(
            f'{workdir.result(CHOSEN)} is not there; choose the early-stopping epochs first (rfn-jax select)'
        )
    parts = [_read(_path(workdir, network)) for network in surrogates]
    if [part.get('origin') for part in parts] != origins:
        raise errors.InputError(
            f'{workdir.result(CHOSEN)} was chosen with other networks or another validation; choose again (rfn-jax select)'
        )
    for name, content in _tables(plan, parts).items():
        path = workdir.result(name)
        if not path.exists() or io.read_bytes(path) != content:
            raise errors.InputError(
                f'{path} is missing, or not the table that this config and the figures in {workdir.result("validation")} '
                'give; choose again (rfn-jax select)'
            )
    return {(row.surrogate, row.training): row.epoch for row in _chosen(plan, parts)}


def _tables(plan: plan_lib.Plan, parts: list[dict]) -> dict[str, bytes]:
    """The tables of what was measured of all surrogates, and of what is chosen by it, by the names of their files."""
    measured = [_rows(part) for part in parts]
    contents = (
        tables.content(transfer.TransferRow, [row for rows, _ in measured for row in rows]),
        tables.content(transfer.NaturalRow, [row for _, rows in measured for row in rows]),
        tables.content(transfer.EarlyStoppingRow, _chosen(plan, parts)),
    )
    return dict(zip(TABLES, contents, strict=True))


def _chosen(plan: plan_lib.Plan, parts: list[dict]) -> list[transfer.EarlyStoppingRow]:
    """The early-stopping epoch of each surrogate and early-stopped training."""
    rows = [row for part in parts for row in _rows(part)[0]]
    return [
        transfer.EarlyStoppingRow(surrogate, name, stops, *transfer.best_epoch(rows, surrogate, stops))
        for surrogate in plan.surrogate_models()
        for name, stops in plan.early_stopping.items()
    ]


def _path(workdir: workdir_lib.Workdir, network: plan_lib.Network) -> epath.Path:
    return workdir.result(f'validation/{network.model}-{network.training}-seed{network.seed}.json')


def _read(path: epath.Path) -> dict:
    """What was measured of a surrogate; empty if it was not, or if the file is damaged."""
    try:
        part = io.read_json_object(path)
        _rows(part)
    except (errors.InputError, KeyError, TypeError):
        return {}
    return part


def _rows(part: dict) -> tuple[list[transfer.TransferRow], list[transfer.NaturalRow]]:
    """The rows that were measured of a surrogate."""
    return (
        [transfer.TransferRow(**row) for row in part['transfer']],
        [transfer.NaturalRow(**row) for row in part['natural']],
    )


def _origin(inputs: inputs_lib.Inputs, surrogate: plan_lib.Network) -> dict:
    """What a surrogate's validation figures depend on."""
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
    """Rows of transfer and natural accuracy of one surrogate's epochs."""
    plan, workdir = inputs.plan, inputs.workdir
    attack = plan.validation_attack.attack
    key = rng.key_for(plan.seed, f'validate {network.model}', network.seed)
    epochs = plan.validation.epochs(network.recipe)
    everything = inputs.validation
    classifiers = workdir.classifiers(network, epochs, inputs.splits.info.image_shape)
    pool = transfer.default_pool(everything)
    rows, natural = [], []
    with workdir.console.task(f'validate {network.title}', len(epochs)) as advance:
        for epoch, surrogate in zip(epochs, classifiers, strict=True):
            images = transfer.craft(attack, surrogate, examples, key, **inputs.batching, pool=pool)
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
            right = training.predict(surrogate, everything, **inputs.batching) == everything.labels
            natural.append(transfer.NaturalRow.of(right, **network.about(epoch)))
            advance(success=float(np.mean([s.mean() for s in success.values()])), accuracy=float(right.mean()))
    return {'transfer': list(map(dataclasses.asdict, rows)), 'natural': list(map(dataclasses.asdict, natural))}

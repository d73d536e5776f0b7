"""Stage 2: measure the checkpoints on validation images and validation targets, and choose the early-stopping epoch."""

import pathlib

import numpy as np

from rfn_jax import data, training, transfer
from rfn_jax.core import errors, files, rng
from rfn_jax.experiment import context, plan

EARLY_STOPPING_COLUMNS = ('surrogate', 'training', 'stops', 'epoch', 'success_rate')


def validate(ctx: context.Context) -> dict[tuple[str, str], int]:
    """Measures surrogates epoch by epoch, on validation images and validation targets only.

    Writes `transfer_validation.csv`, `natural_validation.csv` and `early_stopping.csv`. What was measured of a surrogate
    is kept in `results/validation/`, so a stopped run goes on with the next surrogate.

    Returns:
      For each surrogate and early-stopped training, the epoch that it uses.

    Raises:
      InputError: Networks are not trained, or no validation image is eligible.
      RunError: A checkpoint cannot be read, or a file not written.
    """
    surrogates = ctx.plan.of_role('surrogate')
    origins = [_origin(ctx, network) for network in surrogates]
    paths = [ctx.result(f'validation/{n.model}-{n.training}-seed{n.seed}.json') for n in surrogates]
    missing = [
        (network, origin, path)
        for network, origin, path in zip(surrogates, origins, paths, strict=True)
        if _read(path).get('origin') != origin
    ]
    if missing:
        natural = transfer.predictions(ctx.validation_targets, ctx.splits.validation, **ctx.batching)
        examples = transfer.eligible_examples(ctx.splits.validation, natural, at_most=ctx.plan.validation.examples)
        for network, origin, path in missing:
            files.write_json(path, {'origin': origin, **_measure(ctx, network, examples)})

    parts = [files.read_json(path) for path in paths]
    rows = [row for part in parts for row in part['transfer']]
    files.write_csv(ctx.result('transfer_validation.csv'), transfer.TRANSFER_COLUMNS, rows)
    natural = [row for part in parts for row in part['natural']]
    files.write_csv(ctx.result('natural_validation.csv'), transfer.NATURAL_COLUMNS, natural)
    return _choose(ctx, rows)


def _read(path: pathlib.Path) -> dict:
    """What was measured of a surrogate; empty if it was not, or if the file is damaged."""
    try:
        part = files.read_json(path)
    except errors.InputError:
        return {}
    return part if isinstance(part, dict) else {}


def _origin(ctx: context.Context, surrogate: plan.Network) -> dict:
    """What a surrogate's validation figures depend on, beside the config: the weights."""
    networks = [surrogate, *ctx.plan.of_role('validation_target')]
    return {network.folder: ctx.digest(network, network.last_epoch) for network in networks}


def _measure(
    ctx: context.Context,
    network: plan.Network,
    examples: data.ImageDataset,
) -> dict[str, list[dict]]:
    """Rows of transfer and natural accuracy of one surrogate's epochs."""
    attack = ctx.plan.validation_attack
    key = rng.key_for(ctx.plan.seed, f'validate {network.model}', network.seed)
    epochs = ctx.plan.validation.epochs(network.recipe)
    everything = ctx.splits.validation
    rows, natural = [], []
    with ctx.console.task(f'validate {network.title}', len(epochs)) as advance:
        for epoch, surrogate in zip(epochs, ctx.trained_at(network, epochs), strict=True):
            images = transfer.craft(attack, surrogate, examples, key, **ctx.batching)
            crafted = ctx.crafted(network, network.training, epoch, attack.name, attack)
            success = transfer.successes(ctx.validation_targets, images, examples, **ctx.batching)
            rows += [transfer.transfer_row(crafted, name, transfer.BLACK_BOX, s) for name, s in success.items()]
            own = transfer.successes({network.model: surrogate}, images, examples, **ctx.batching)[network.model]
            rows.append(transfer.transfer_row(crafted, network.model, transfer.WHITE_BOX, own))
            right = training.predict(surrogate, everything, **ctx.batching) == everything.labels
            natural.append(
                transfer.natural_row(network.model, network.role, network.training, network.seed, epoch, right)
            )
            advance(success=float(np.mean([s.mean() for s in success.values()])), accuracy=float(right.mean()))
    return {'transfer': rows, 'natural': natural}


def _choose(ctx: context.Context, rows: list[dict]) -> dict[tuple[str, str], int]:
    """The early-stopping epochs, which it also writes."""
    chosen, table = {}, []
    for surrogate in ctx.plan.config['surrogates']:
        for name, stops in ctx.plan.early_stopping.items():
            epoch, rate = transfer.best_epoch(rows, surrogate, stops)
            chosen[surrogate, name] = epoch
            table.append(dict(zip(EARLY_STOPPING_COLUMNS, (surrogate, name, stops, epoch, rate), strict=True)))
    files.write_csv(ctx.result('early_stopping.csv'), EARLY_STOPPING_COLUMNS, table)
    return chosen

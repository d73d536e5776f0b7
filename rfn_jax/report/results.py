"""The results of a work directory as typed rows. Rates are fractions in [0, 1]; gains are fractions in [-1, 1]."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from rfn_jax import landscape as landscape_lib
from rfn_jax import transfer as transfer_lib
from rfn_jax.core import digests, errors, io, tables

__all__ = [
    'ExampleImages', 'Group', 'Results', 'group_of', 'groups', 'in_group', 'rates_by_target', 'read', 'read_example_images',
    'trainings',
]  # fmt: skip


class Results(NamedTuple):
    """Everything that a report shows, except for the images of the examples.

    Attributes:
      metrics: For each surrogate's architecture, training and seed, the lines of its `metrics.jsonl`, in the order of epochs.
      num_classes: Number of classes of the data; None if no network directory says so.
    """

    config: dict
    environment: dict[str, str]
    transfer: list[transfer_lib.TransferRow]
    natural: list[transfer_lib.NaturalRow]
    transfer_validation: list[transfer_lib.TransferRow]
    natural_validation: list[transfer_lib.NaturalRow]
    early_stopping: list[transfer_lib.EarlyStoppingRow]
    summary: list[transfer_lib.SummaryRow]
    gains: list[transfer_lib.GainRow]
    examples: list[transfer_lib.ExampleRow]
    landscape: list[landscape_lib.LandscapeRow]
    metrics: dict[tuple[str, str, int], list[dict]]
    num_classes: int | None


class Group(NamedTuple):
    """Rows that may be compared: those of one surrogate under one attack and one budget."""

    surrogate: str
    attack: str
    eps: float
    norm: str


class ExampleImages(NamedTuple):
    """The images of the examples, clean and by training: uint8 arrays `[N, H, W, C]`, with C 1 or 3."""

    ids: np.ndarray
    clean: np.ndarray
    adversarial: dict[str, np.ndarray]


def read(workdir: os.PathLike[str] | str) -> Results:
    """Reads the results of a work directory.

    Args:
      workdir: A directory that `rfn-jax run` has filled.

    Returns:
      The results. Gains, early stopping, validation and examples may be empty, since not every experiment has them.

    Raises:
      InputError: A file is missing, empty or damaged, or lacks a column; or the tables belong to another config, or do not
        belong together.
    """
    workdir = io.absolute(workdir)
    run = Results(
        config=_read_dict(workdir / 'config.json'),
        environment=_read_dict(workdir / 'environment.json'),
        transfer=_read_rows(workdir, 'transfer', transfer_lib.TransferRow, required=True),
        natural=_read_rows(workdir, 'natural', transfer_lib.NaturalRow, required=True),
        transfer_validation=_read_rows(workdir, 'transfer_validation', transfer_lib.TransferRow),
        natural_validation=_read_rows(workdir, 'natural_validation', transfer_lib.NaturalRow),
        early_stopping=_read_rows(workdir, 'early_stopping', transfer_lib.EarlyStoppingRow),
        summary=_read_rows(workdir, 'summary', transfer_lib.SummaryRow, required=True),
        gains=_read_rows(workdir, 'gains', transfer_lib.GainRow),
        examples=_read_rows(workdir, 'examples', transfer_lib.ExampleRow),
        landscape=_read_landscape(workdir),
        metrics=_read_metrics(workdir),
        num_classes=_num_classes(workdir),
    )
    _check_measured(workdir, run.config)
    if not set(groups(run.summary)) <= set(groups(run.transfer)):
        raise _error_with_remedy(f'summary.csv and transfer.csv of {workdir / "results"} do not belong together')
    return run


def read_example_images(
    workdir: os.PathLike[str] | str, examples: Sequence[transfer_lib.ExampleRow]
) -> ExampleImages | None:
    """Reads the images of the examples.

    Args:
      workdir: A directory that `rfn-jax run` has filled.
      examples: The rows of `results/examples.csv`.

    Returns:
      The images, or None if `examples` is empty.

    Raises:
      InputError: The file is missing or damaged, or does not hold the images of the rows.
    """
    if not examples:
        return None
    path = epath.Path(workdir) / 'results' / 'examples.npz'
    trainings = dict.fromkeys(row.training for row in examples)
    try:
        with io.npz_arrays(path.read_bytes()) as arrays:
            example_images = ExampleImages(
                arrays['ids'], arrays['clean'], {name: arrays[f'adversarial_{name}'] for name in trainings}
            )
    except io.DAMAGED as error:
        raise _error_with_remedy(f'could not read {path}: {error}') from error
    for images in (example_images.clean, *example_images.adversarial.values()):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise _error_with_remedy(
                f'{path} holds {images.dtype} {list(images.shape)}, not uint8 images of 1 or 3 channels'
            )
        if images.shape != example_images.clean.shape or len(images) != len(example_images.ids):
            raise _error_with_remedy(f'{path} holds arrays that do not belong together')
    if unknown := {row.id for row in examples} - set(example_images.ids.tolist()):
        raise _error_with_remedy(f'{path} lacks the image {min(unknown)} of examples.csv')
    return example_images


def group_of(row) -> Group:
    """The group of a row that has the columns surrogate, attack, eps and norm."""
    return Group(row.surrogate, row.attack, row.eps, row.norm)


def groups(rows: Iterable) -> list[Group]:
    """The groups of `rows`, in the order of the file."""
    return list(dict.fromkeys(group_of(row) for row in rows))


def in_group(rows: Iterable, group: Group) -> list:
    """The rows of one group, in the order of the file."""
    return [row for row in rows if group_of(row) == group]


def trainings(rows: Iterable) -> list[str]:
    """The names of the trainings in `rows`, in the order of the file."""
    return list(dict.fromkeys(row.training for row in rows))


def rates_by_target(rows: Sequence[transfer_lib.TransferRow]) -> dict[tuple[str, str], dict[str, float]]:
    """Means over seeds of the success rates of one group.

    Args:
      rows: Rows of one group.

    Returns:
      `{(target, kind): {training: mean success rate}}`, black-box targets first, each kind in the order of the file.
    """
    rates = {}
    for row in sorted(rows, key=lambda row: row.kind == transfer_lib.WHITE_BOX):
        rates.setdefault((row.target, row.kind), {}).setdefault(row.training, []).append(row.success_rate)
    return {key: {name: math.fsum(v) / len(v) for name, v in means.items()} for key, means in rates.items()}


def _error_with_remedy(message: str) -> errors.InputError:
    return errors.InputError(f'{message}; `rfn-jax run` makes it again')


def _check_measured(workdir: epath.Path, config: dict) -> None:
    """Checks that the tables belong together and to the config, if `measured.json` records which ones do."""
    results = workdir / 'results'
    if not (results / 'measured.json').exists():
        return
    record = _read_dict(results / 'measured.json')
    if not isinstance(record.get('tables'), dict):
        raise _error_with_remedy(f'{results} was not measured to the end')
    if record.get('config') != digests.of_measured(config):
        raise _error_with_remedy(
            f'{results} was measured with a config other than the one in {workdir / "config.json"}'
        )
    for name, digest in record['tables'].items():
        try:
            same = digests.of_file(results / name) == digest
        except errors.InputError as error:
            raise _error_with_remedy(str(error)) from error
        if not same:
            raise _error_with_remedy(f'{results / name} has changed since {results} was measured')


def _read_landscape(workdir: epath.Path) -> list[landscape_lib.LandscapeRow]:
    """The rows of a stage that most experiments do not have: those of the surrogates of the last config."""
    config = _read_dict(workdir / 'config.json')
    settings = config.get('landscape')
    if settings is None or not (workdir / 'results' / 'landscape.csv').exists():
        return []
    rows = _read_rows(workdir, 'landscape', landscape_lib.LandscapeRow, required=True)
    names = config.get('surrogates', {}), config.get('trainings', {})
    return [
        row
        for row in rows
        if row.surrogate in names[0] and row.training in names[1] and row.seed < config.get('seeds', 1)
    ]


def _read_metrics(workdir: epath.Path) -> dict[tuple[str, str, int], list[dict]]:
    """The metrics of the surrogates of the last config that have some; damaged lines are left out."""
    config, found = _read_dict(workdir / 'config.json'), {}
    for model in config.get('surrogates', {}):
        for training in config.get('trainings', {}):
            for seed in range(config.get('seeds', 1)):
                path = workdir / 'surrogates' / f'{model}-{training}' / f'seed{seed}' / 'metrics.jsonl'
                if path.exists():
                    found[model, training, seed] = list(_json_lines(path))
    return found


def _json_lines(path: epath.Path) -> Iterator[dict]:
    for line in io.read_bytes(path).decode(errors='replace').splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield {name: number for name, number in value.items() if type(number) in (int, float)}


def _num_classes(workdir: epath.Path) -> int | None:
    """The number of classes that the description of a trained network says."""
    for path in sorted(workdir.glob('targets/*/network.json')):
        try:
            return int(io.read_json_object(path)['num_classes'])
        except (errors.InputError, KeyError, TypeError, ValueError):
            continue
    return None


def _read_dict(path: epath.Path) -> dict:
    try:
        return io.read_json_object(path)
    except errors.InputError as error:
        raise _error_with_remedy(str(error)) from error


def _read_rows(workdir: epath.Path, name: str, kind: type, *, required: bool = False) -> list:
    path = workdir / 'results' / f'{name}.csv'
    try:
        rows = tables.read(path, kind)
    except errors.InputError as error:
        raise _error_with_remedy(str(error)) from error
    if required and not rows:
        raise _error_with_remedy(f'{path} is empty')
    return rows

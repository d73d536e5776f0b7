"""The results of a work directory as typed rows. Rates are fractions in [0, 1]; gains are fractions in [-1, 1]."""

import csv
import math
import os
import pathlib
import types
import typing
import zipfile
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from rfn_jax.core import errors, files

WHITE_BOX = 'white-box'
BLACK_BOX = 'black-box'


class TransferRow(NamedTuple):
    """Success of one attack, made on one trained surrogate, on one target; the interval is Wilson's, 95 %."""

    surrogate: str
    training: str
    seed: int
    epoch: int
    attack: str
    eps: float
    norm: str
    target: str
    kind: str
    success_rate: float
    ci_low: float
    ci_high: float
    n: int
    gradient_evaluations: int


class NaturalRow(NamedTuple):
    """Natural accuracy of one model; imported weights have no seed or epoch."""

    model: str
    role: str
    training: str
    seed: int | None
    epoch: int | None
    accuracy: float
    n: int


class EarlyStoppingRow(NamedTuple):
    """The epoch at which the training `stops` is stopped, chosen on validation targets, and the success rate there."""

    surrogate: str
    training: str
    stops: str
    epoch: int
    success_rate: float


class SummaryRow(NamedTuple):
    """Mean black-box success of one training over targets and seeds; the interval is a bootstrap, 95 %."""

    surrogate: str
    training: str
    attack: str
    eps: float
    norm: str
    success_rate: float
    ci_low: float | None
    ci_high: float | None
    white_box_rate: float | None
    natural_accuracy: float | None
    seeds: int
    targets: int
    n: int
    gradient_evaluations: int


class GainRow(NamedTuple):
    """Mean black-box success of `training` minus that of `baseline`; the interval is a paired bootstrap, 95 %."""

    surrogate: str
    training: str
    baseline: str
    attack: str
    eps: float
    norm: str
    gain: float
    ci_low: float | None
    ci_high: float | None


class ExampleRow(NamedTuple):
    """What one target says of one image of the strip, before and after the attack; classes by name."""

    surrogate: str
    training: str
    seed: int
    epoch: int
    attack: str
    eps: float
    norm: str
    target: str
    kind: str
    id: int
    label: str
    clean_prediction: str
    adversarial_prediction: str


class Results(NamedTuple):
    """Everything that a report shows, but for the images of the strip."""

    config: dict
    environment: dict[str, str]
    transfer: list[TransferRow]
    natural: list[NaturalRow]
    transfer_validation: list[TransferRow]
    natural_validation: list[NaturalRow]
    early_stopping: list[EarlyStoppingRow]
    summary: list[SummaryRow]
    gains: list[GainRow]
    examples: list[ExampleRow]


class Group(NamedTuple):
    """What may be compared: rows of one surrogate under one attack and one budget."""

    surrogate: str
    attack: str
    eps: float
    norm: str


class Strip(NamedTuple):
    """The images of the strip: uint8 arrays `[N, H, W, C]`, with C 1 or 3."""

    ids: np.ndarray
    clean: np.ndarray
    adversarial: dict[str, np.ndarray]


def read(workdir: os.PathLike | str) -> Results:
    """Reads the results of a work directory.

    Args:
      workdir: A directory that `rfn-jax run` has filled.

    Returns:
      The results. Gains, early stopping, validation and examples may be empty: not every experiment has them.

    Raises:
      InputError: A file is missing, empty or damaged, or lacks a column.
    """
    workdir = pathlib.Path(workdir)
    found = Results(
        config=_read_dict(workdir / 'config.json'),
        environment=_read_dict(workdir / 'environment.json'),
        transfer=_read_rows(workdir, 'transfer', TransferRow, needed=True),
        natural=_read_rows(workdir, 'natural', NaturalRow, needed=True),
        transfer_validation=_read_rows(workdir, 'transfer_validation', TransferRow),
        natural_validation=_read_rows(workdir, 'natural_validation', NaturalRow),
        early_stopping=_read_rows(workdir, 'early_stopping', EarlyStoppingRow),
        summary=_read_rows(workdir, 'summary', SummaryRow, needed=True),
        gains=_read_rows(workdir, 'gains', GainRow),
        examples=_read_rows(workdir, 'examples', ExampleRow),
    )
    if not set(groups(found.summary)) <= set(groups(found.transfer)):
        raise _remedy(f'summary.csv and transfer.csv of {workdir / "results"} do not belong together')
    return found


def read_strip(workdir: os.PathLike | str, examples: Sequence[ExampleRow]) -> Strip | None:
    """Reads the images that `examples` speaks of.

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
    path = pathlib.Path(workdir) / 'results' / 'examples.npz'
    trainings = dict.fromkeys(row.training for row in examples)
    try:
        with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
            strip = Strip(arrays['ids'], arrays['clean'], {name: arrays[f'adversarial_{name}'] for name in trainings})
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _remedy(f'could not read {path}: {error}') from error
    for images in (strip.clean, *strip.adversarial.values()):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise _remedy(f'{path} holds {images.dtype} {list(images.shape)}, not uint8 images of 1 or 3 channels')
        if images.shape != strip.clean.shape or len(images) != len(strip.ids):
            raise _remedy(f'{path} holds arrays that do not belong together')
    if unknown := {row.id for row in examples} - set(strip.ids.tolist()):
        raise _remedy(f'{path} lacks the image {min(unknown)} of examples.csv')
    return strip


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


def rates_by_target(rows: Sequence[TransferRow]) -> dict[tuple[str, str], dict[str, float]]:
    """Means over seeds of the success rates of one group.

    Args:
      rows: Rows of one group.

    Returns:
      `{(target, kind): {training: mean success rate}}`, black-box targets first, each kind in the order of the file.
    """
    rates = {}
    for row in sorted(rows, key=lambda row: row.kind == WHITE_BOX):
        rates.setdefault((row.target, row.kind), {}).setdefault(row.training, []).append(row.success_rate)
    return {key: {name: math.fsum(v) / len(v) for name, v in means.items()} for key, means in rates.items()}


def _remedy(message: str) -> errors.InputError:
    return errors.InputError(f'{message}; make it with `rfn-jax run`')


def _read_dict(path: pathlib.Path) -> dict:
    try:
        value = files.read_json(path)
    except ValueError as error:
        raise _remedy(str(error)) from error
    if not isinstance(value, dict):
        raise _remedy(f'{path} holds a {type(value).__name__}, not an object')
    return value


def _read_rows(workdir: pathlib.Path, name: str, kind: type, *, needed: bool = False) -> list:
    path = workdir / 'results' / f'{name}.csv'
    try:
        rows = files.read_csv(path)
    except (ValueError, csv.Error) as error:
        raise _remedy(str(error)) from error
    if not rows and (needed or not path.stat().st_size):
        raise _remedy(f'{path} is empty')
    column_types = typing.get_type_hints(kind)
    for column in column_types:
        if rows and column not in rows[0]:
            raise _remedy(f'{path} has no column {column!r}')
    return [
        kind(**{column: _parse(path, line, column, row[column], to) for column, to in column_types.items()})
        for line, row in enumerate(rows, start=2)
    ]


def _parse(path: pathlib.Path, line: int, column: str, text: str | None, to):
    if to is str and text is not None:
        return text
    optional = isinstance(to, types.UnionType)
    if optional and text in ('', 'nan'):
        return None
    number = typing.get_args(to)[0] if optional else to
    try:
        value = number(text)
        if math.isfinite(value):
            return value
    except (TypeError, ValueError):
        pass
    raise _remedy(f'{path}, line {line}: {column} is {text!r}, not a {"whole " if number is int else ""}number')

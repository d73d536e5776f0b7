"""The results of a work directory as typed rows. Rates are fractions in [0, 1]; gains are fractions in [-1, 1]."""

import math
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from rfn_jax.core import digests, errors, io, tables
from rfn_jax.transfer import (
    BLACK_BOX,
    WHITE_BOX,
    EarlyStoppingRow,
    ExampleRow,
    GainRow,
    NaturalRow,
    SummaryRow,
    TransferRow,
)

__all__ = [
    'BLACK_BOX', 'WHITE_BOX', 'EarlyStoppingRow', 'ExampleRow', 'GainRow', 'Group', 'NaturalRow', 'Results', 'Strip',
    'SummaryRow', 'TransferRow', 'group_of', 'groups', 'in_group', 'rates_by_target', 'read', 'read_strip', 'trainings',
]  # fmt: skip


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
      InputError: A file is missing, empty or damaged, or lacks a column; or the tables are those of another config, or do not
        belong together.
    """
    workdir = io.absolute(workdir)
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
    _check_measured(workdir, found.config)
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
    path = epath.Path(workdir) / 'results' / 'examples.npz'
    trainings = dict.fromkeys(row.training for row in examples)
    try:
        with io.npz_arrays(path.read_bytes()) as arrays:
            strip = Strip(arrays['ids'], arrays['clean'], {name: arrays[f'adversarial_{name}'] for name in trainings})
    except io.DAMAGED as error:
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
    return errors.InputError(f'{message}; `rfn-jax run` makes it again')


def _check_measured(workdir: epath.Path, config: dict) -> None:
    """Checks that the tables are those that belong together, and to the config, where it is noted which they are."""
    results = workdir / 'results'
    if not (results / 'measured.json').exists():
        return
    noted = _read_dict(results / 'measured.json')
    if noted.get('config') != digests.of_plain(config):
        raise _remedy(f'{results} was measured with another config than that in {workdir / "config.json"}')
    if not isinstance(noted.get('tables'), dict):
        raise _remedy(f'{results / "measured.json"} is damaged: it has no tables')
    for name, digest in noted['tables'].items():
        if digests.of_file(results / name) != digest:
            raise _remedy(f'{results / name} is not the one that was there when {results} was measured')


def _read_dict(path: epath.Path) -> dict:
    try:
        return io.read_json_object(path)
    except errors.InputError as error:
        raise _remedy(str(error)) from error


def _read_rows(workdir: epath.Path, name: str, kind: type, *, needed: bool = False) -> list:
    path = workdir / 'results' / f'{name}.csv'
    try:
        rows = tables.read(path, kind)
    except errors.InputError as error:
        raise _remedy(str(error)) from error
    if needed and not rows:
        raise _remedy(f'{path} is empty')
    return rows

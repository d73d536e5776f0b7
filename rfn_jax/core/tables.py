"""CSV tables: each is written and read by means of a frozen dataclass for its rows.

The fields of the dataclass are the columns. They are annotated with `str`, `int` or `float`, or with `int | None` or
`float | None` for a value that may be unknown; an unknown value is an empty cell.
"""

import csv
import dataclasses
import math
import os
import types
import typing
from collections.abc import Iterable
from io import StringIO

from rfn_jax.core import errors, io

Row = typing.TypeVar('Row')


def columns(kind: type) -> tuple[str, ...]:
    """Returns the columns of a table."""
    return tuple(field.name for field in dataclasses.fields(kind))


def content(kind: type[Row], rows: Iterable[Row]) -> bytes:
    """Returns the contents of a table, with `\\n` line endings and six digits after the decimal point.

    Args:
      kind: Dataclass of the rows.
      rows: The rows.
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(columns(kind))
    for row in rows:
        values = (getattr(row, name) for name in columns(kind))
        writer.writerow([f'{value:.6f}' if isinstance(value, float) else value for value in values])
    return text.getvalue().encode()


def write(path: os.PathLike[str] | str, kind: type[Row], rows: Iterable[Row]) -> None:
    """Writes the `content` of a table, completely or not at all.

    Args:
      path: Where to write.
      kind: Dataclass of the rows.
      rows: The rows.

    Raises:
      RunError: It cannot be written.
    """
    io.write_bytes(path, content(kind, rows))


def read(path: os.PathLike[str] | str, kind: type[Row]) -> list[Row]:
    """Reads a table; columns that the dataclass does not have are ignored.

    Args:
      path: The file.
      kind: Dataclass of the rows.

    Raises:
      InputError: The file is missing, empty, unreadable or not CSV, lacks a column, or has a cell of the wrong type.
    """
    raw = io.read_bytes(path)
    try:
        rows = list(csv.DictReader(StringIO(raw.decode(), newline='')))
    except (UnicodeDecodeError, csv.Error) as error:
        raise errors.InputError(f'{path} is not a CSV file: {error}') from error
    if not raw:
        raise errors.InputError(f'{path} is empty')
    column_types = typing.get_type_hints(kind)
    for column in columns(kind):
        if rows and column not in rows[0]:
            raise errors.InputError(f'{path} has no column {column!r}')
    return [
        kind(**{name: _parse(path, line, name, row[name], column_types[name]) for name in columns(kind)})
        for line, row in enumerate(rows, start=2)
    ]


def _parse(path: os.PathLike[str] | str, line: int, column: str, text: str | None, to):
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
    kind = 'an integer' if number is int else 'a number'
    raise errors.InputError(f'{path}, line {line}: {column} is {text!r}, not {kind}')

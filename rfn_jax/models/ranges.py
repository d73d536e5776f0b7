"""Checks of the options of models and of the sizes of their images, with one error message for each.

The checks of options take keyword arguments and return them as a dictionary of plain numbers.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from rfn_jax.core import checks, errors


def _each(check: Callable[[str, Any], Any], /, **options) -> dict[str, Any]:
    return {name: check(name, value) for name, value in options.items()}


# Each raises an InputError if an option is out of range.
check_sizes = functools.partial(_each, functools.partial(checks.integer, at_least=1))  # strides, widths and counts
check_positive = functools.partial(_each, functools.partial(checks.number, above=0))  # multipliers
check_rates = functools.partial(_each, functools.partial(checks.number, at_least=0, below=1))  # of dropping something
check_loss_weights = functools.partial(_each, functools.partial(checks.number, at_least=0))


def check_odd(**options: int) -> dict[str, int]:
    """Checks sizes of kernels that must have a center.

    Raises:
      InputError: A size is even or not positive.
    """
    sizes = check_sizes(**options)
    for name, value in sizes.items():
        if value % 2 == 0:
            raise errors.InputError(f'{name} must be odd, got {value}')
    return sizes


def check_widths(**options: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Checks sequences of widths or counts, which may be empty.

    Raises:
      InputError: An entry is not an integer of at least 1.
    """
    return {
        name: tuple(checks.integer(f'{name}[{index}]', value, at_least=1) for index, value in enumerate(values))
        for name, values in options.items()
    }


def check_stages(**options: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Checks sequences of integers that have one entry for each stage of a network.

    Raises:
      InputError: There are no stages, the sequences differ in length, or an integer is below 1.
    """
    counts = {len(values) for values in options.values()}
    if len(counts) > 1 or 0 in counts:
        got = ' and '.join(f'{name} {tuple(values)}' for name, values in options.items())
        raise errors.InputError(f'{got} need the same number of stages, at least one')
    return check_widths(**options)


def check_table(name: str, rows: Sequence[Sequence[int]], columns: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Checks a table with a row of integers for each stage of a network.

    Args:
      name: Name of the table in error messages.
      rows: The table.
      columns: Names of the columns; integers in the column `'kernel'` must be odd.

    Raises:
      InputError: There are no rows, a row has the wrong length, or an integer is out of range.
    """
    if not rows or any(len(row) != len(columns) for row in rows):
        raise errors.InputError(f'{name} must have at least one row of {", ".join(columns)}, got {rows!r}')
    return tuple(tuple(_check_row(f'{name}[{index}]', columns, row)) for index, row in enumerate(rows))


def _check_row(name: str, columns: Sequence[str], row: Sequence[int]) -> Iterator[int]:
    for column, value in zip(columns, row, strict=True):
        check = check_odd if column == 'kernel' else check_sizes
        yield from check(**{f'{column} of {name}': value}).values()


def check_image(x: jax.Array, min_size: int, network: str) -> None:
    """Checks that images `[B, H, W, C]` are large enough for a network; `network` is its name, such as `'VGG'`.

    Raises:
      InputError: The images have fewer than `min_size` rows or columns.
    """
    height, width = x.shape[1:3]
    if min(height, width) < min_size:
        raise errors.InputError(
            f'an image of {height} x {width} pixels is too small for this {network}, which needs at least {min_size} rows '
            'and columns'
        )

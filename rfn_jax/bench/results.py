"""The results of a benchmark: rows, their JSON file, tables, and a comparison with an earlier file."""

import dataclasses
import itertools
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

import rich.box
import rich.table
import rich.text

from rfn_jax.core import errors, io


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """The timing of one program.

    Attributes:
      model: Name of the model.
      work: What the program does: the name of a minimizer, or that of an attack with its number of steps.
      kind: `'training'` or `'attack'`.
      precision: Name in `PRECISIONS`.
      batch_size: Images in a step.
      steps_per_call: Number of training steps that the host launches together.
      seconds: Seconds for a training step, or for an attack on one batch, in each round.
      model_tflops: TFLOP in a step; see `Program.model_flops`.
      utilization: Model FLOP/s divided by the dense peak of the devices, in [0, 1]; None if the peak is unknown.
      compile_s: Seconds spent tracing and compiling.
      memory_bytes: Memory of the program on one device.
      error: Why it could not be timed; `seconds` is empty then.
    """

    model: str
    work: str
    kind: str
    precision: str
    batch_size: int
    steps_per_call: int = 1
    seconds: Sequence[float] = ()
    model_tflops: float = 0.0
    utilization: float | None = None
    compile_s: float = 0.0
    memory_bytes: int = 0
    error: str = ''

    @property
    def setting(self) -> tuple:
        """What the rows of a group have in common; together with `work`, it identifies comparable rows in two files."""
        return self.kind, self.model, self.precision, self.batch_size

    @property
    def median(self) -> float:
        """Median number of seconds for a step."""
        return statistics.median(self.seconds)

    @property
    def images_per_s(self) -> float:
        """Images per second, from the median."""
        return self.batch_size / self.median


def write(path: os.PathLike[str] | str, environment: Mapping[str, str], command: str, rows: Iterable[Row]) -> None:
    """Writes the results so far as JSON, completely or not at all.

    Raises:
      RunError: The file cannot be written.
    """
    listed = []
    for row in rows:
        values = dataclasses.asdict(row)
        if row.seconds:
            values |= {'median_s': row.median, 'images_per_s': row.images_per_s}
        listed.append(values)
    io.write_json(path, {'environment': dict(environment), 'command': command, 'rows': listed})


def read(path: os.PathLike[str] | str) -> tuple[dict[str, str], list[Row]]:
    """Reads the environment and the rows from a file written by `write`.

    Raises:
      InputError: The file is missing or holds something else.
    """
    content = io.read_json(path)
    fields = {field.name for field in dataclasses.fields(Row)}
    try:
        rows = [Row(**{name: value for name, value in row.items() if name in fields}) for row in content['rows']]
        for row in rows:
            if not all(isinstance(value, (int, float)) and value > 0 for value in row.seconds):
                raise ValueError(f'seconds must be numbers above 0, got {row.seconds!r}')
            if not all(isinstance(value, (str, int)) for value in (*row.setting, row.work)):
                raise ValueError(f'it has a row with the setting {row.setting}')
        return dict(content['environment']), rows
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise errors.InputError(f'{path} is not a result of rfn-jax bench: {type(error).__name__} {error}') from error


def tables(rows: Sequence[Row]) -> list[rich.table.Table]:
    """Returns tables of the rows for a terminal, one for each model, kind, precision and batch size.

    `x SGD` is the time of a step divided by that of SGD; `MFU` is the fraction of the devices' dense peak that the operations
    of the model itself account for.
    """
    return [_table(list(group)) for _, group in itertools.groupby(rows, lambda row: row.setting)]


def _table(rows: Sequence[Row]) -> rich.table.Table:
    base = next((row for row in rows if row.work == 'sgd' and row.seconds), None)
    columns: dict[str, Callable[[Row], str]] = {
        'ms': lambda row: _ms(row.median),
        'min': lambda row: _ms(min(row.seconds)),
        'max': lambda row: _ms(max(row.seconds)),
        'images/s': lambda row: f'{row.images_per_s:,.0f}' if row.images_per_s >= 100 else f'{row.images_per_s:.3g}',
    }
    if base is not None:
        columns['x SGD'] = lambda row: f'{row.median / base.median:.2f}'
    if any(row.utilization is not None for row in rows):
        columns['MFU'] = lambda row: '' if row.utilization is None else f'{row.utilization:.1%}'
    columns['compile s'] = lambda row: f'{row.compile_s:.1f}'
    columns['GiB'] = lambda row: f'{row.memory_bytes / 2**30:.1f}'
    shown = rich.table.Table(title=_title(rows[0]), title_justify='left', box=rich.box.SIMPLE_HEAD)
    shown.add_column('', no_wrap=True)
    for column in columns:
        shown.add_column(column, justify='right', no_wrap=True)
    for row in rows:
        shown.add_row(row.work, *([cell(row) for cell in columns.values()] if row.seconds else [row.error]))
    return shown


def _ms(seconds: float) -> str:
    """Formats milliseconds with four digits, or with all digits before the decimal point."""
    return f'{1e3 * seconds:.4g}' if seconds < 10 else f'{1e3 * seconds:.0f}'


def compare(rows: Sequence[Row], other: Sequence[Row], *, title: str) -> rich.table.Table:
    """Compares the rows with the same ones in an earlier file: the earlier median over the new one, above 1 if now faster.

    The table notes where the ranges of the rounds overlap.
    """
    earlier_rows = {(*row.setting, row.work): row for row in other if row.seconds}
    common = [row for row in rows if row.seconds and (*row.setting, row.work) in earlier_rows]
    if not common:
        title += ' (no model, batch size, precision and work in common)'
    shown = rich.table.Table(title=rich.text.Text(title), title_justify='left', box=rich.box.SIMPLE_HEAD)
    shown.add_column('')
    for column in ('ms', 'earlier', 'times faster'):
        shown.add_column(column, justify='right', no_wrap=True)
    shown.add_column('')
    for row in common:
        earlier = earlier_rows[*row.setting, row.work]
        overlap = min(row.seconds) <= max(earlier.seconds) and min(earlier.seconds) <= max(row.seconds)
        shown.add_row(
            f'{row.work}: {_title(row)}',
            *map(_ms, (row.median, earlier.median)),
            f'{earlier.median / row.median:.2f}',
            'within the spread' if overlap else '',
        )
    return shown


def _title(row: Row) -> str:
    return f'{row.kind} of {row.model}, batch {row.batch_size}, {row.precision}'

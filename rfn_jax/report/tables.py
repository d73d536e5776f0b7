"""The results as tables in the terminal."""

import os
from collections.abc import Iterable, Sequence

import rich.box
import rich.table
import rich.text

from rfn_jax import transfer as transfer_lib
from rfn_jax.core import console as console_lib
from rfn_jax.report import results, signatures, words


def print_tables(workdir: os.PathLike[str] | str, console: console_lib.Console) -> None:
    """Prints success by training, gains over the baselines and success by target for each surrogate and attack.

    Args:
      workdir: A directory that `rfn-jax run` has filled.
      console: Where to print; a log gets plain text.

    Raises:
      InputError: A file of results is missing, empty or damaged.
    """
    run = results.read(workdir)
    for group in results.groups(run.summary):
        summary, gains = results.in_group(run.summary, group), results.in_group(run.gains, group)
        transfer = results.in_group(run.transfer, group)
        console.info(f'\n{words.setting(group)}')
        console.info('\nSuccess rate in %: mean over black-box targets and seeds; white-box separately\n')
        console.rich.print(_summary_table(summary))
        if gains:
            console.info('\nGain in points of mean black-box success rate\n')
            console.rich.print(_gains_table(gains))
        console.info('\nSuccess rate in % by target, mean over seeds\n')
        console.rich.print(_target_table(transfer))
        for sentence in words.findings(summary, gains):
            console.rich.print(rich.text.Text(f'\n{sentence}'), soft_wrap=False)
    found = signatures.signatures(run)
    if found:
        console.info('\nRead these figures with care:')
    for signature in found:
        console.rich.print(rich.text.Text(f'- {words.warning(signature)}'), soft_wrap=False)


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, name_columns: int) -> rich.table.Table:
    """A table of literal text whose first `name_columns` columns hold names and whose other columns hold figures."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        justify = 'left' if index < name_columns else 'right'
        table.add_column(rich.text.Text(column), justify=justify, overflow='fold')
    for row in rows:
        table.add_row(*(rich.text.Text(str(cell)) for cell in row))
    return table


def _summary_table(rows: Sequence[transfer_lib.SummaryRow]) -> rich.table.Table:
    return _table(
        ('training', 'black\nbox', '95 %\ninterval', 'white\nbox', 'natural\naccuracy', 'seeds', 'targets', 'n'),
        (
            (
                row.training,
                words.percent(row.success_rate),
                words.interval(row),
                words.percent(row.white_box_rate),
                words.percent(row.natural_accuracy),
                row.seeds,
                row.targets,
                row.n,
            )
            for row in rows
        ),
        name_columns=1,
    )


def _gains_table(rows: Sequence[transfer_lib.GainRow]) -> rich.table.Table:
    return _table(
        ('training', 'baseline', 'gain', '95 % interval', 'excludes zero'),
        (
            (
                row.training,
                row.baseline,
                words.points(row.gain),
                words.interval(row, words.points),
                words.excludes_zero(row),
            )
            for row in rows
        ),
        name_columns=2,
    )


def _target_table(rows: Sequence[transfer_lib.TransferRow]) -> rich.table.Table:
    trainings = results.trainings(rows)
    return _table(
        ('target', *trainings),
        (
            (
                target if kind == transfer_lib.BLACK_BOX else f'{target} ({kind})',
                *(words.percent(rates.get(name)) for name in trainings),
            )
            for (target, kind), rates in results.rates_by_target(rows).items()
        ),
        name_columns=1,
    )

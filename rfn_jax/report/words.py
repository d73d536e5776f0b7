"""Results in words: figures as a reader expects them, and the findings in one sentence each."""

from collections.abc import Sequence

from rfn_jax import transfer as transfer_lib
from rfn_jax.report import results, signatures

MISSING = '-'


def percent(rate: float | None) -> str:
    """A fraction in percent, without the percent sign, such as `'62.1'`; `'-'` for None."""
    return MISSING if rate is None else f'{100 * rate:.1f}'


def points(gain: float | None) -> str:
    """A difference of fractions in percentage points, with its sign, such as `'+4.0'`; `'-'` for None."""
    return MISSING if gain is None else f'{100 * gain:+.1f}'


def interval(row, unit=percent) -> str:
    """The interval of a row with `ci_low` and `ci_high`, such as `'59.0 to 65.2'`; `'-'` if there is none."""
    return f'{unit(row.ci_low)} to {unit(row.ci_high)}' if _has_interval(row) else MISSING


def excludes_zero(row: transfer_lib.GainRow) -> str:
    """Whether the interval of a gain excludes zero: `'yes'`, `'no'`, or `'-'` if there is no interval."""
    if not _has_interval(row):
        return MISSING
    return 'yes' if row.ci_low > 0 or row.ci_high < 0 else 'no'


def setting(group: results.Group) -> str:
    """A group in words, such as `'resnet18 attacked with bim, L-infinity, eps 4/255'`."""
    norm = {'linf': 'L-infinity', 'inf': 'L-infinity', 'l2': 'L2', '2': 'L2'}.get(group.norm.lower(), group.norm)
    levels = 255 * group.eps
    in_levels = norm == 'L-infinity' and abs(levels - round(levels)) < 1e-3
    eps = f'{round(levels)}/255' if in_levels else f'{group.eps:g}'
    return f'{group.surrogate} attacked with {group.attack}, {norm}, eps {eps}'


def join_names(names: Sequence[str]) -> str:
    """Names as a list in words: `'a'`, `'a and b'`, `'a, b and c'`."""
    return ' and '.join(filter(None, [', '.join(names[:-1]), *names[-1:]]))


def findings(summary: Sequence[transfer_lib.SummaryRow], gains: Sequence[transfer_lib.GainRow]) -> list[str]:
    """The findings in one group: one sentence for each training that is compared with baselines.

    Args:
      summary: The rows of one group.
      gains: The gains of the same group.

    Returns:
      Sentences that say which baselines the training is above, by how much, and which intervals exclude zero.
    """
    rates = {row.training: row.success_rate for row in summary}
    if not gains:
        return ['No training was compared with a baseline.']
    sentences = []
    for training in results.trainings(gains):
        rows = [row for row in gains if row.training == training]
        details = join_names(
            [f'{points(row.gain)} points against {row.baseline}{_interval_in_parentheses(row)}' for row in rows]
        )
        sentences.append(
            f'{training} reaches a mean black-box success rate of {percent(rates.get(training))} % and is '
            f'{_standing(rows)}: {details}; {_certainty(rows)}.'
        )
    return sentences


def warning(signature: signatures.Signature) -> str:
    """A sign that a figure means less than it seems to, in one line."""
    return f'{signature.name}: {signature.finding}. {signature.remedy[0].upper()}{signature.remedy[1:]}.'


def _has_interval(row) -> bool:
    return row.ci_low is not None and row.ci_high is not None


def _interval_in_parentheses(row: transfer_lib.GainRow) -> str:
    return f' (95 % interval {interval(row, points)})' if _has_interval(row) else ''


def _standing(rows: Sequence[transfer_lib.GainRow]) -> str:
    """What a training is above, as far as the intervals exclude zero."""
    above = [row.baseline for row in rows if row.ci_low is not None and row.ci_low > 0]
    if len(rows) == 1:
        return f'{"above" if above else "not surely above" if rows[0].gain > 0 else "not above"} {rows[0].baseline}'
    if len(above) == len(rows):
        return 'above both baselines' if len(rows) == 2 else f'above all {len(rows)} baselines'
    if not above:
        surely = 'not surely above any baseline' if any(row.gain > 0 for row in rows) else 'above neither baseline'
        return surely if len(rows) == 2 else surely.replace('neither baseline', f'none of the {len(rows)} baselines')
    others = [row.baseline for row in rows if row.baseline not in above]
    surely = 'surely ' if any(row.gain > 0 for row in rows if row.baseline in others) else ''
    return f'above {join_names(above)} but not {surely}above {join_names(others)}'


def _certainty(rows: Sequence[transfer_lib.GainRow]) -> str:
    if not all(map(_has_interval, rows)):
        return 'there are not enough data for intervals'
    crossing = [row.baseline for row in rows if excludes_zero(row) == 'no']
    if crossing:
        plural = len(crossing) > 1
        return f'the interval{"s" * plural} against {join_names(crossing)} include{"" if plural else "s"} zero'
    return 'the interval excludes zero' if len(rows) == 1 else 'no interval includes zero'

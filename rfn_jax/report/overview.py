"""What was compared, what leads, by how much, and whether that is sure: the first screen of a report."""

import math
from typing import NamedTuple

from rfn_jax.report import results, words


class Ranked(NamedTuple):
    """One training in the ranking.

    Attributes:
      training: Its name.
      success: Its mean black-box success rate over all settings.
      rates: Its rate in each setting, in the order of `Overview.settings`; None where it was not measured.
      natural: Its mean natural accuracy over the surrogates.
    """

    training: str
    success: float
    rates: list[float | None]
    natural: float


class Overview(NamedTuple):
    """The first screen.

    Attributes:
      compared: One sentence: how many trainings, surrogates, attacks, targets, seeds and images.
      leading: One sentence: the training with the largest mean, and how sure its lead over the baselines is.
      settings: A short title of each setting: surrogate, attack and budget.
      ranking: The trainings, the best one first.
    """

    compared: str
    leading: str
    settings: list[str]
    ranking: list[Ranked]


def overview(run: results.Results) -> Overview:
    """Returns the overview of a run."""
    groups = results.groups(run.summary)
    by_group = {group: {row.training: row for row in results.in_group(run.summary, group)} for group in groups}
    ranking = []
    for training in results.trainings(run.summary):
        rows = [by_group[group].get(training) for group in groups]
        measured = [row for row in rows if row is not None]
        ranking.append(
            Ranked(
                training,
                math.fsum(row.success_rate for row in measured) / len(measured),
                [None if row is None else row.success_rate for row in rows],
                math.fsum(row.natural_accuracy for row in measured) / len(measured),
            )
        )
    ranking.sort(key=lambda ranked: -ranked.success)
    return Overview(_compared(run, groups), _leading(run, ranking), [_title(g, groups) for g in groups], ranking)


def _compared(run: results.Results, groups: list[results.Group]) -> str:
    first = run.summary[0]
    counts = (
        (len(results.trainings(run.summary)), 'training'),
        (len({group.surrogate for group in groups}), 'surrogate architecture'),
        (len({(group.attack, group.eps, group.norm) for group in groups}), 'attack'),
        (first.targets, 'black-box target'),
        (first.seeds, 'seed'),
        (first.n, 'test image'),
    )
    return f'Compared: {words.join_names([_count(*pair) for pair in counts])}.'


def _count(count: int, name: str) -> str:
    return f'{count} {name}{"" if count == 1 else "s"}'


def _leading(run: results.Results, ranking: list[Ranked]) -> str:
    best = ranking[0]
    gains = [row for row in run.gains if row.training == best.training]
    start = f'{best.training} has the largest mean black-box success rate, {words.percent(best.success)} %'
    if not gains:
        other = f', {words.points(best.success - ranking[1].success)} points from the next' if len(ranking) > 1 else ''
        return f'{start}{other}; it is a baseline or was not compared with one, so no interval is given.'
    sure = [row for row in gains if row.ci_low is not None and row.ci_low > 0]
    if len(sure) == len(gains):
        least = min(gains, key=lambda row: row.gain)
        return (
            f'{start}, and is above every baseline in every setting: by {words.points(least.gain)} points or more, with '
            'intervals that exclude zero.'
        )
    return f'{start}; {len(sure)} of {len(gains)} gains over baselines have an interval above zero.'


def _title(group: results.Group, groups: list[results.Group]) -> str:
    """A setting in as few words as tell it from the others."""
    several = len({other.surrogate for other in groups}) > 1
    budget = words.setting(group).split(', ', 1)[1]
    return f'{group.surrogate}: {group.attack}, {budget}' if several else f'{group.attack}, {budget}'

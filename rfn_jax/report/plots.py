"""Plots as SVG; the same results give the same bytes. matplotlib is imported when the first plot is drawn."""

import contextlib
import io
import math
import re
from collections.abc import Sequence

from rfn_jax import transfer as transfer_lib
from rfn_jax.report import results

# Okabe and Ito's colors, which color-blind readers can tell apart; those with the best contrast on white come first.
_COLORS = ('#0072B2', '#009E73', '#D55E00', '#CC79A7', '#000000', '#E69F00', '#56B4E9')
_MARKERS = ('o', 's', 'D', '^', 'v', 'P', 'X')
_WIDTH = 4.0  # inches: 10 point text is then 11 pixels high on a phone that is 360 pixels wide


def colors(trainings: Sequence[str]) -> dict[str, str]:
    """One color for each training, as `'#rrggbb'`, in order; after the seventh, the colors start over."""
    return {name: _COLORS[index % len(_COLORS)] for index, name in enumerate(trainings)}


def success_by_target(rows: Sequence[transfer_lib.TransferRow], palette: dict[str, str], *, name: str) -> str:
    """Success rate on each target: a thin dot with its interval for each seed, and a thick mark for the mean over seeds.

    Args:
      rows: Rows of one group.
      palette: A color for each training.
      name: Prefix of the ids in the element, so that a page can hold several plots.

    Returns:
      An `<svg>` element.
    """
    means = results.rates_by_target(rows)
    trainings, positions = results.trainings(rows), {key: position for position, key in enumerate(means)}
    lane = 0.8 / len(trainings)
    with _style():
        figure = _figure(1.1 + len(positions) * max(0.36, 0.17 * len(trainings)))
        axes = figure.add_subplot()
        for order, training in enumerate(trainings):
            color, marker = palette[training], _marker(training, palette)
            center = (order + 0.5) * lane - 0.4
            seeds = sorted({row.seed for row in rows if row.training == training})
            for row in (row for row in rows if row.training == training):
                offset = center + lane * ((seeds.index(row.seed) + 0.5) / len(seeds) - 0.5) * 0.7
                y = positions[row.target, row.kind] + offset
                axes.plot([100 * row.ci_low, 100 * row.ci_high], [y, y], color=color, linewidth=0.8, alpha=0.6)
                axes.plot(100 * row.success_rate, y, marker='.', markersize=3.5, color=color, linestyle='none')
            mean = [
                (100 * rates[training], positions[key] + center) for key, rates in means.items() if training in rates
            ]
            axes.plot(
                *zip(*mean, strict=True),
                **{'marker': marker, 'markersize': 6, 'color': color, 'linestyle': 'none', 'label': training},
                **{'markeredgecolor': 'white', 'markeredgewidth': 0.7},
            )
        for position in range(1, len(positions)):
            axes.axhline(position - 0.5, color='#d0d0d0', linewidth=0.6)
        axes.set_yticks(
            list(positions.values()),
            [target if kind == transfer_lib.BLACK_BOX else f'{target}\n({kind})' for target, kind in positions],
        )
        axes.set(xlabel='success rate (%)', xlim=(-2, 102), ylim=(len(positions) - 0.5, -0.5))
        axes.tick_params(axis='y', length=0)
        axes.grid(axis='x', color='#e4e4e4', linewidth=0.6)
        _legend(figure, axes)
        return _svg(figure, name)


def by_epoch(
    transfer: Sequence[transfer_lib.TransferRow],
    natural: Sequence[transfer_lib.NaturalRow],
    stopping: Sequence[transfer_lib.EarlyStoppingRow],
    decay_epochs: Sequence[int],
    palette: dict[str, str],
    *,
    name: str,
) -> str:
    """Mean black-box success rate and natural accuracy by epoch: thick lines for means over seeds, thin lines for seeds.

    Args:
      transfer: Rows of one group, for several epochs.
      natural: Rows of the same surrogate, for several epochs.
      stopping: The early-stopping epochs of the same surrogate.
      decay_epochs: The epochs at which the learning rate decays.
      palette: A color for each training.
      name: Prefix of the ids in the element, so that a page can hold several plots.

    Returns:
      An `<svg>` element.
    """
    success = _curves(
        (row.training, row.seed, row.epoch, row.success_rate) for row in transfer if not _is_white_box(row)
    )
    accuracy = _curves((row.training, row.seed, row.epoch, row.accuracy) for row in natural)
    with _style():
        figure = _figure(5.4)
        panels = figure.subplots(2, sharex=True)
        for axes, curves, label in zip(panels, (success, accuracy), _BY_EPOCH_LABELS, strict=True):
            for training, seeds in curves.items():
                color, mean = palette[training], _mean_curve(seeds)
                for curve in seeds.values():
                    axes.plot(list(curve), list(curve.values()), color=color, linewidth=0.6, alpha=0.5)
                axes.plot(list(mean), list(mean.values()), color=color, linewidth=2, label=training)
                for row in stopping:
                    if row.stops == training and row.epoch in mean:
                        style = {'color': palette.get(row.training, color), 'markersize': 8, 'zorder': 4}
                        style |= {'marker': _marker(row.training, palette), 'markeredgecolor': 'white'}
                        stop_label = f'{row.training} (epoch {row.epoch})'
                        axes.plot(row.epoch, mean[row.epoch], linestyle='none', label=stop_label, **style)
            for index, epoch in enumerate(decay_epochs):
                decay_label = None if index else 'learning rate decays'
                axes.axvline(epoch, color='#555555', linewidth=1.2, linestyle=':', label=decay_label)
            axes.set(ylabel=label)
            axes.grid(axis='y', color='#e4e4e4', linewidth=0.6)
        panels[-1].set(xlabel='epoch')
        panels[-1].xaxis.get_major_locator().set_params(integer=True)
        _legend(figure, panels[0])
        return _svg(figure, name)


_BY_EPOCH_LABELS = ('success rate (%)\non validation targets', 'natural accuracy (%)\non validation images')


def _is_white_box(row: transfer_lib.TransferRow) -> bool:
    return row.kind == transfer_lib.WHITE_BOX


def _curves(measurements) -> dict[str, dict[int, dict[int, float]]]:
    """`{training: {seed: {epoch: percent}}}`, with means where an epoch is measured more than once (on several targets)."""
    values = {}
    for training, seed, epoch, rate in measurements:
        values.setdefault(training, {}).setdefault(seed, {}).setdefault(epoch, []).append(100 * rate)
    return {
        training: {seed: {epoch: _mean(curve[epoch]) for epoch in sorted(curve)} for seed, curve in seeds.items()}
        for training, seeds in values.items()
    }


def _mean_curve(seeds: dict[int, dict[int, float]]) -> dict[int, float]:
    """The mean over seeds, at the epochs that all seeds have."""
    common = sorted(set.intersection(*map(set, seeds.values())))
    return {epoch: _mean([curve[epoch] for curve in seeds.values()]) for epoch in common}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _marker(training: str, palette: dict[str, str]) -> str:
    names = list(palette)
    return _MARKERS[names.index(training) % len(_MARKERS)] if training in palette else '*'


@contextlib.contextmanager
def _style():
    """Sets matplotlib's defaults and this project's choices, and restores the user's settings at the end."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                'axes.edgecolor': '#555555',
                'axes.labelsize': 10,
                'axes.spines.right': False,
                'axes.spines.top': False,
                'font.size': 10,
                'legend.fontsize': 10,
                'svg.hashsalt': 'rfn_jax',
                'text.parse_math': False,
            }
        )
        yield


def _figure(height: float):
    import matplotlib.figure

    return matplotlib.figure.Figure(figsize=(_WIDTH, height), layout='constrained')


def _legend(figure, axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels), default=0) <= 18 else 1
    figure.legend(handles, labels, loc='outside upper left', frameon=False, ncols=columns)


def _svg(figure, name: str) -> str:
    """The figure as an `<svg>` element whose ids begin with `name`."""
    content = io.StringIO()
    figure.savefig(content, format='svg', metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')))
    svg = content.getvalue()
    svg = svg[svg.index('<svg') :]
    return re.sub(r'(\bid="|href="#|url\(#)', rf'\g<1>{name}-', svg).strip()

"""Signs that a figure means less than it seems to, each with what to change."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rfn_jax.report import results

UNDERFIT = 0.05  # training accuracy below that of the baseline, in [0, 1]
NATURAL_DROP = 0.03
FEW_IMAGES = 100
RISE = 1.5  # of the training loss over its lowest value


class Signature(NamedTuple):
    """A sign that was found.

    Attributes:
      name: A short name of the kind.
      finding: What was found, with its figures.
      remedy: What to change.
    """

    name: str
    finding: str
    remedy: str


def signatures(run: results.Results) -> list[Signature]:
    """Returns the signs in the results of a run, in the order in which they should be looked at."""
    return [signature for find in FINDERS for signature in find(run)]


def _weak_targets(run: results.Results) -> Iterator[Signature]:
    """Targets near chance."""
    for row in run.natural:
        if row.role == 'target' and run.num_classes and row.accuracy < 2 / run.num_classes:
            yield Signature(
                'weak target',
                f'target {row.model} classifies {row.accuracy:.1%} of the test images correctly, and chance is '
                f'{1 / run.num_classes:.1%}',
                'train it longer, check the normalization of imported weights, or leave it out',
            )


def _few_images(run: results.Results) -> Iterator[Signature]:
    fewest = min(row.n for row in run.summary)
    if fewest < FEW_IMAGES:
        yield Signature(
            'few images',
            f'success is measured on {fewest} images, since all targets must classify an image correctly',
            'use more test images or stronger targets; the intervals are wide',
        )


def _shared_images(run: results.Results) -> Iterator[Signature]:
    """Targets that saw the training images of the surrogates."""
    targets = run.config.get('targets', {})
    trained = [name for name, entry in targets.items() if 'network' not in entry]
    surrogates_are_trained = any(not entry.get('as_is') for entry in run.config.get('surrogates', {}).values())
    if trained and surrogates_are_trained:
        share = 'all' if len(trained) == len(targets) else f'{len(trained)} of {len(targets)}'
        yield Signature(
            'shared training images',
            f'{share} targets were trained here on the same images as the surrogates',
            'on targets that others trained on other images, the gains may be smaller: name such networks as targets, '
            "{'network': DIRECTORY}",
        )


def _underfit(run: results.Results) -> Iterator[Signature]:
    remedy = (
        'a large rho costs transfer if the surrogate does not fit its data: train longer, use a wider network or more '
        'images, or a smaller rho'
    )
    yield from _below_sgd(_training_accuracy(run), UNDERFIT, 'underfitting', 'training accuracy', remedy)


def _less_accurate(run: results.Results) -> Iterator[Signature]:
    stopped = {row.training for row in run.early_stopping}
    rows = [row for row in run.summary if row.training not in stopped]
    natural = {(row.surrogate, row.training): row.natural_accuracy for row in rows}
    remedy = 'RFN should not lose accuracy: train for the full schedule, or use a smaller rho'
    yield from _below_sgd(natural, NATURAL_DROP, 'natural accuracy', 'natural accuracy', remedy)


def _below_sgd(
    values: Mapping[tuple[str, str], float], margin: float, name: str, figure: str, remedy: str
) -> Iterator[Signature]:
    """A signature for each surrogate and training whose figure is below that of SGD by more than a margin."""
    for (surrogate, training), value in values.items():
        sgd = values.get((surrogate, 'sgd'), -math.inf)
        if value < sgd - margin:
            yield Signature(
                name, f'{training} has a {figure} of {value:.1%} and sgd one of {sgd:.1%} ({surrogate})', remedy
            )


def _training_accuracy(run: results.Results) -> dict[tuple[str, str], float]:
    """The accuracy on the training batches of the last epoch, by surrogate and training: means over seeds."""
    found: dict[tuple[str, str], list[float]] = {}
    for (surrogate, training, _), lines in run.metrics.items():
        values = [line['accuracy'] for line in lines if line.get('accuracy') is not None]
        if values:
            found.setdefault((surrogate, training), []).append(values[-1])
    return {key: math.fsum(values) / len(values) for key, values in found.items()}


def _diverging(run: results.Results) -> Iterator[Signature]:
    for (surrogate, training, seed), lines in run.metrics.items():
        losses = [line['loss'] for line in lines if line.get('loss') is not None]
        skipped = max((line.get('skipped_count') or 0 for line in lines), default=0)
        title = f'{surrogate}-{training} seed {seed}'
        if losses and losses[-1] > RISE * min(losses):
            yield Signature(
                'rising loss',
                f'the training loss of {title} fell to {min(losses):.3g} and ended at {losses[-1]:.3g}',
                'use a smaller learning rate or rho',
            )
        if skipped:
            yield Signature(
                'skipped steps',
                f'{skipped} steps of {title} had no perturbation, because a gradient was not finite',
                'use a smaller learning rate, or float32',
            )


def _falls_with_rho(run: results.Results) -> Iterator[Signature]:
    """Success that falls from each rho to the next larger one."""
    options = {name: entry for name, entry in run.config.get('trainings', {}).items() if 'rho' in entry}
    for group in results.groups(run.summary):
        rates = {row.training: row.success_rate for row in results.in_group(run.summary, group)}
        by_method: dict[str, list[tuple[float, float]]] = {}
        for name, entry in options.items():
            if name in rates and isinstance(entry['rho'], int | float):
                by_method.setdefault(entry['name'], []).append((entry['rho'], rates[name]))
        for method, pairs in by_method.items():
            falls = sorted(pairs)
            if len(falls) > 1 and all(a > b for (_, a), (_, b) in itertools.pairwise(falls)):
                yield Signature(
                    'success falls with rho',
                    f'success of {method} falls from {falls[0][1]:.1%} at rho {falls[0][0]:g} to {falls[-1][1]:.1%} at rho '
                    f'{falls[-1][0]:g} ({group.surrogate}, {group.attack})',
                    'all radii are too large for this training: train longer, use a wider network or more images, or try '
                    'smaller ones, chosen on validation data',
                )


def _stopped_late(run: results.Results) -> Iterator[Signature]:
    epochs = run.config.get('optim', {}).get('epochs')
    for row in run.early_stopping:
        if row.epoch == epochs:
            yield Signature(
                'no early stopping',
                f'{row.training} of {row.surrogate} stops {row.stops} at the last epoch, {row.epoch}',
                f'it is the same network as {row.stops}, and no second baseline; validate more often, or on more images',
            )


FINDERS: Sequence[Callable[[results.Results], Iterator[Signature]]] = (
    _weak_targets,
    _few_images,
    _underfit,
    _less_accurate,
    _falls_with_rho,
    _diverging,
    _stopped_late,
    _shared_images,
)

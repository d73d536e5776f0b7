"""One HTML page on a run: a single file that loads nothing, needs no script and says the same on every machine."""

import json
import os
from collections.abc import Sequence
from typing import NamedTuple

import jinja2
import markupsafe
from etils import epath

from rfn_jax.core import io
from rfn_jax.report import images, plots, results, words

_SMALL = 128  # pixels: below, an image is shown larger than it is and its pixels stay squares


class Section(NamedTuple):
    """What the page shows of one surrogate under one attack and budget."""

    title: str
    findings: list[str]
    summary: list[results.SummaryRow]
    gains: list[results.GainRow]
    trainings: list[str]
    by_target: dict[tuple[str, str], dict[str, float]]
    target_plot: str
    epoch_plot: str | None
    validation_title: str
    stopping: list[results.EarlyStoppingRow]


class Example(NamedTuple):
    """One image of the strip: PNG URIs, and a list of (target, kind, clean, {training: adversarial}) predictions."""

    id: int
    label: str
    clean: str
    attacked: list[tuple[str, str, str]]
    predictions: list[tuple[str, str, str, dict[str, str]]]


def write_page(workdir: os.PathLike | str) -> epath.Path:
    """Writes `report/index.html` from the results of a work directory.

    The same results give the same bytes.

    Args:
      workdir: A directory that `rfn-jax run` has filled.

    Returns:
      The path of the page.

    Raises:
      InputError: A file of results is missing, empty or damaged.
      RunError: The page could not be written.
    """
    found = results.read(workdir)
    strip = results.read_strip(workdir, found.examples)
    factor = images.amplification(strip.clean, strip.adversarial.values()) if strip else 1
    rows = [*found.summary, *found.transfer, *found.transfer_validation, *found.natural_validation]
    palette = plots.colors(results.trainings(rows))
    page = _template().render(
        name=str(found.config.get('name', 'experiment')),
        config=found.config,
        environment=found.environment,
        sections=[_section(found, group, palette, place) for place, group in enumerate(results.groups(found.summary))],
        natural=found.natural,
        palette=palette,
        strip=strip,
        strip_title=words.setting(results.group_of(found.examples[0])) if strip else '',
        factor=factor,
        pixelated=strip is not None and max(strip.clean.shape[1:3]) < _SMALL,
        examples=_examples(strip, found.examples, factor) if strip else [],
    )
    path = epath.Path(workdir) / 'report' / 'index.html'
    io.write_bytes(path, page.encode())
    return path


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('rfn_jax.report', ''),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals['words'] = words
    environment.filters['json'] = json.dumps  # jinja's own tojson is for scripts: it writes < as \\u003c
    return environment.get_template('page.html.jinja')


def _section(found: results.Results, group: results.Group, palette: dict[str, str], place: int) -> Section:
    summary, gains = results.in_group(found.summary, group), results.in_group(found.gains, group)
    transfer = results.in_group(found.transfer, group)
    # Their attack may have fewer steps than the reported one, so only the surrogate is the same.
    validation = [row for row in found.transfer_validation if row.surrogate == group.surrogate]
    stopping = [row for row in found.early_stopping if row.surrogate == group.surrogate]
    natural = [r for r in found.natural_validation if r.role == 'surrogate' and r.model == group.surrogate]
    decay_epochs = found.config.get('optim', {}).get('decay_epochs', ())
    target_plot = plots.success_by_target(transfer, palette, name=f'target{place}')
    epoch_plot = None
    if validation:
        epoch_plot = plots.by_epoch(validation, natural, stopping, decay_epochs, palette, name=f'epoch{place}')
    return Section(
        title=words.setting(group),
        findings=words.findings(summary, gains),
        summary=summary,
        gains=gains,
        trainings=results.trainings(transfer),
        by_target=results.rates_by_target(transfer),
        target_plot=markupsafe.Markup(target_plot),  # matplotlib has escaped the names in it
        epoch_plot=epoch_plot and markupsafe.Markup(epoch_plot),
        validation_title=words.setting(results.group_of(validation[0])) if validation else '',
        stopping=stopping,
    )


def _examples(strip: results.Strip, rows: Sequence[results.ExampleRow], factor: int) -> list[Example]:
    return [
        _example(strip, place, [row for row in rows if row.id == identity], factor)
        for place, identity in enumerate(strip.ids.tolist())
        if any(row.id == identity for row in rows)
    ]


def _example(strip: results.Strip, place: int, rows: Sequence[results.ExampleRow], factor: int) -> Example:
    clean, attacked = strip.clean[place], []
    for training, adversarial in strip.adversarial.items():
        difference = images.perturbation(clean, adversarial[place], factor)
        attacked.append((training, images.data_uri(difference), images.data_uri(adversarial[place])))
    predictions = []
    for target, kind in dict.fromkeys((row.target, row.kind) for row in sorted(rows, key=lambda row: row.kind)):
        of_target = [row for row in rows if (row.target, row.kind) == (target, kind)]
        before = ' / '.join(dict.fromkeys(row.clean_prediction for row in of_target))
        after = {row.training: row.adversarial_prediction for row in of_target}
        predictions.append((target, kind, before, after))
    return Example(rows[0].id, rows[0].label, images.data_uri(clean), attacked, predictions)

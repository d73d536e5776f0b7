"""One HTML page about a run: a single file that loads nothing, needs no script and reads the same on every machine."""

import json
import os
from collections.abc import Sequence
from typing import NamedTuple

import jinja2
import markupsafe
from etils import epath

from rfn_jax import transfer as transfer_lib
from rfn_jax.core import io
from rfn_jax.report import images, overview, plots, results, signatures, words

_SMALL = 128  # pixels; smaller images are enlarged without smoothing


class Section(NamedTuple):
    """What the page shows for one surrogate under one attack and budget."""

    title: str
    findings: list[str]
    summary: list[transfer_lib.SummaryRow]
    gains: list[transfer_lib.GainRow]
    trainings: list[str]
    by_target: dict[tuple[str, str], dict[str, float]]
    target_plot: str


class Dynamics(NamedTuple):
    """What the page shows of one surrogate by epoch."""

    surrogate: str
    plot: str
    validation_title: str
    stopping: list[transfer_lib.EarlyStoppingRow]


class Example(NamedTuple):
    """One example: images as PNG URIs, and predictions as a list of (target, kind, clean, {training: adversarial})."""

    id: int
    label: str
    clean: str
    attacked: list[tuple[str, str, str]]
    predictions: list[tuple[str, str, str, dict[str, str]]]


def write_page(workdir: os.PathLike[str] | str) -> epath.Path:
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
    run = results.read(workdir)
    example_images = results.read_example_images(workdir, run.examples)
    factor = images.amplification(example_images.clean, example_images.adversarial.values()) if example_images else 1
    rows = [*run.summary, *run.transfer, *run.transfer_validation, *run.natural_validation]
    palette = plots.colors(results.trainings(rows))
    page = _template().render(
        name=str(run.config.get('name', 'experiment')),
        config=run.config,
        environment=run.environment,
        sections=[_section(run, group, palette, index) for index, group in enumerate(results.groups(run.summary))],
        overview=overview.overview(run),
        dynamics=_dynamics(run, palette),
        landscape=run.landscape,
        warnings=[words.warning(signature) for signature in signatures.signatures(run)],
        natural=run.natural,
        palette=palette,
        examples_title=words.setting(results.group_of(run.examples[0])) if example_images else '',
        factor=factor,
        pixelated=example_images is not None and max(example_images.clean.shape[1:3]) < _SMALL,
        examples=_examples(example_images, run.examples, factor) if example_images else [],
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
    environment.filters['json'] = json.dumps  # jinja's own tojson is meant for scripts: it writes < as \\u003c
    return environment.get_template('page.html.jinja')


def _section(run: results.Results, group: results.Group, palette: dict[str, str], index: int) -> Section:
    summary, gains = results.in_group(run.summary, group), results.in_group(run.gains, group)
    transfer = results.in_group(run.transfer, group)
    target_plot = plots.success_by_target(transfer, palette, name=f'target{index}')
    return Section(
        title=words.setting(group),
        findings=words.findings(summary, gains),
        summary=summary,
        gains=gains,
        trainings=results.trainings(transfer),
        by_target=results.rates_by_target(transfer),
        target_plot=markupsafe.Markup(target_plot),  # matplotlib has already escaped the names in it
    )


def _dynamics(run: results.Results, palette: dict[str, str]) -> list[Dynamics]:
    """One entry for each surrogate that was measured by epoch."""
    found = []
    decay_epochs = run.config.get('optim', {}).get('decay_epochs', ())
    for index, surrogate in enumerate(dict.fromkeys(row.surrogate for row in run.transfer_validation)):
        validation = [row for row in run.transfer_validation if row.surrogate == surrogate]
        stopping = [row for row in run.early_stopping if row.surrogate == surrogate]
        natural = [r for r in run.natural_validation if r.role == 'surrogate' and r.model == surrogate]
        plot = plots.by_epoch(validation, natural, stopping, decay_epochs, palette, name=f'epoch{index}')
        title = words.setting(results.group_of(validation[0]))
        found.append(Dynamics(surrogate, markupsafe.Markup(plot), title, stopping))
    return found


def _examples(
    example_images: results.ExampleImages, rows: Sequence[transfer_lib.ExampleRow], factor: int
) -> list[Example]:
    return [
        _example(example_images, index, [row for row in rows if row.id == example_id], factor)
        for index, example_id in enumerate(example_images.ids.tolist())
        if any(row.id == example_id for row in rows)
    ]


def _example(
    example_images: results.ExampleImages, index: int, rows: Sequence[transfer_lib.ExampleRow], factor: int
) -> Example:
    clean, attacked = example_images.clean[index], []
    for training, adversarial in example_images.adversarial.items():
        difference = images.perturbation(clean, adversarial[index], factor)
        attacked.append((training, images.data_uri(difference), images.data_uri(adversarial[index])))
    predictions = []
    for target, kind in dict.fromkeys((row.target, row.kind) for row in sorted(rows, key=lambda row: row.kind)):
        of_target = [row for row in rows if (row.target, row.kind) == (target, kind)]
        before = ' / '.join(dict.fromkeys(row.clean_prediction for row in of_target))
        after = {row.training: row.adversarial_prediction for row in of_target}
        predictions.append((target, kind, before, after))
    return Example(rows[0].id, rows[0].label, images.data_uri(clean), attacked, predictions)

"""Stage 4: measure the adversarial sets on the targets, and write the result tables."""

import dataclasses

import numpy as np

from rfn_jax import data, training, transfer
from rfn_jax.core import digests, errors, io, tables
from rfn_jax.experiment import crafting, examples, selection
from rfn_jax.experiment import inputs as inputs_lib
from rfn_jax.experiment import plan as plan_lib
from rfn_jax.experiment import workdir as workdir_lib

TABLES = ('transfer.csv', 'natural.csv', 'summary.csv', 'gains.csv', 'examples.csv', 'examples.npz')
NOTE = 'measured.json'


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was measured of one adversarial set.

    Attributes:
      job: The adversarial set.
      targets: For each target, whether it misclassifies each adversarial image: booleans `[N]`.
      surrogate: The same for the surrogate itself.
      right: Whether the surrogate classifies each unchanged test image correctly, over the whole test set.
    """

    job: crafting.Job
    targets: dict[str, np.ndarray]
    surrogate: np.ndarray
    right: np.ndarray

    @property
    def gradient_evaluations(self) -> int:
        """Gradients of the surrogate for one example."""
        return self.job.attack.attack.gradient_evaluations


def measure(plan: plan_lib.Plan, workdir: workdir_lib.Workdir) -> None:
    """Writes `transfer.csv`, `natural.csv`, `summary.csv`, `gains.csv` and the examples of the report.

    Nothing is measured if they are there, whole, and were written from the same adversarial sets and weights. Last of all,
    `measured.json` says which config and tables belong together: a report shows no others.

    Raises:
      InputError: The early-stopping epochs were not chosen with this config, or an adversarial set is missing or was made
        from something else.
      RunError: A checkpoint cannot be read, or a file not written.
    """
    inputs = inputs_lib.Inputs(plan, workdir)
    eligible = inputs.test_examples()
    jobs = list(crafting.jobs(inputs, selection.stops(inputs)))
    for job in jobs:  # all are there before the first is measured
        job.images(eligible)
    _check_targets(inputs, jobs)
    workdir.bind()
    workdir.define_references(plan)
    noted, made_from = _noted(workdir), _inputs(inputs, jobs, eligible)
    if noted.get('inputs') != made_from or not _are_there(workdir, noted.get('tables')):
        _write_tables(inputs, jobs, eligible)
    digests_now = {name: digests.of_file(workdir.result(name)) for name in (*TABLES, *selection.TABLES)}
    note = {'config': plan.config_sha256, 'inputs': made_from, 'tables': digests_now}
    if note != noted:
        io.write_json(workdir.result(NOTE), note)


def _noted(workdir: workdir_lib.Workdir) -> dict:
    """What is noted of the last measurement; empty if nothing is, or if the file is damaged."""
    try:
        return io.read_json_object(workdir.result(NOTE))
    except errors.InputError:
        return {}


def _are_there(workdir: workdir_lib.Workdir, noted: object) -> bool:
    """Whether the tables of this stage are those whose hashes were noted."""
    try:
        return isinstance(noted, dict) and all(
            digests.of_file(workdir.result(name)) == noted.get(name) for name in TABLES
        )
    except errors.InputError:  # one is missing
        return False


def _write_tables(inputs: inputs_lib.Inputs, jobs: list[crafting.Job], eligible: data.ImageDataset) -> None:
    """Measures all adversarial sets, and writes the tables of this stage."""
    workdir = inputs.workdir
    right: dict[str, np.ndarray] = {}
    outcomes = []
    with workdir.console.task('measure', len(jobs)) as advance:
        for job in jobs:
            surrogate = inputs.classifier(job.network, job.crafted.epoch)
            attacked = job.images(eligible)
            own = transfer.successes({job.network.model: surrogate}, attacked, eligible, **inputs.batching)
            weights = job.origin['weights_sha256']
            if weights not in right:  # the same for all attacks on a checkpoint
                right[weights] = training.predict(surrogate, inputs.test, **inputs.batching) == inputs.test.labels
            on_targets = transfer.successes(inputs.targets, attacked, eligible, **inputs.batching)
            outcomes.append(Outcome(job, on_targets, own[job.network.model], right[weights]))
            advance(success=float(np.mean([s.mean() for s in on_targets.values()])))
    summary, gains = _compare(outcomes, inputs.plan.baselines)
    tables.write(workdir.result('transfer.csv'), transfer.TransferRow, _transfer_rows(outcomes))
    tables.write(workdir.result('natural.csv'), transfer.NaturalRow, _natural_rows(inputs, outcomes))
    tables.write(workdir.result('summary.csv'), transfer.SummaryRow, summary)
    tables.write(workdir.result('gains.csv'), transfer.GainRow, gains)
    examples.write(inputs, jobs, eligible)


def _check_targets(inputs: inputs_lib.Inputs, jobs: list[crafting.Job]) -> None:
    """Checks that no target is a validation target or a surrogate by another name.

    Raises:
      InputError: One is.
    """
    found = {
        role: {inputs.digest(n, n.last_epoch): n.model for n in inputs.plan.of_role(role)}
        for role in ('target', 'validation_target')
    }
    for digest, name in found['validation_target'].items():
        if digest in found['target']:
            raise plan_lib.reported_on_itself(name, found['target'][digest])
    for job in jobs:
        target = found['target'].get(job.origin['weights_sha256'])
        if target is not None:
            raise errors.InputError(
                f'target {target!r} is the {job.network.title} after epoch {job.crafted.epoch}: success on it is white-box'
            )


def _inputs(inputs: inputs_lib.Inputs, jobs: list[crafting.Job], eligible: data.ImageDataset) -> str:
    """A hash of everything that the tables depend on."""
    networks = [network for network in inputs.plan.networks if network.role != 'surrogate']
    weights = {network.folder: inputs.digest(network, network.last_epoch) for network in networks}
    sets = [[job.origin, job.attack.attack.gradient_evaluations] for job in jobs]
    return digests.of_plain([sets, weights, eligible.ids.tolist(), len(inputs.test), inputs.plan.baselines])


def _transfer_rows(outcomes: list[Outcome]) -> list[transfer.TransferRow]:
    rows = []
    for outcome in outcomes:
        measured = [(name, transfer.BLACK_BOX, success) for name, success in outcome.targets.items()]
        measured.append((outcome.job.network.model, transfer.WHITE_BOX, outcome.surrogate))
        rows += [
            transfer.TransferRow.of(outcome.job.crafted, *what, gradient_evaluations=outcome.gradient_evaluations)
            for what in measured
        ]
    return rows


def _natural_rows(inputs: inputs_lib.Inputs, outcomes: list[Outcome]) -> list[transfer.NaturalRow]:
    """Natural accuracy on the test images: of the surrogates that were attacked, and of the targets of both kinds."""
    rows = {}
    for outcome in outcomes:
        crafted = outcome.job.crafted
        about = {**outcome.job.network.about(crafted.epoch), 'training': crafted.training}
        rows[tuple(about.values())] = transfer.NaturalRow.of(outcome.right, **about)
    for role, classifiers in (('target', inputs.targets), ('validation_target', inputs.validation_targets)):
        predicted = transfer.predictions(classifiers, inputs.test, **inputs.batching)
        for network in inputs.plan.of_role(role):
            about = network.about(network.last_epoch)
            right = predicted[network.model] == inputs.test.labels
            rows[tuple(about.values())] = transfer.NaturalRow.of(right, **about)
    return list(rows.values())


def _compare(
    outcomes: list[Outcome], baselines: tuple[str, ...]
) -> tuple[list[transfer.SummaryRow], list[transfer.GainRow]]:
    """The rows of `summary.csv` and `gains.csv`: the mean of every training, and the gains over the baselines."""
    groups: dict[tuple, dict[str, list[Outcome]]] = {}
    for outcome in outcomes:
        crafted = outcome.job.crafted
        key = (crafted.surrogate, crafted.attack, crafted.eps, crafted.norm)
        groups.setdefault(key, {}).setdefault(crafted.training, []).append(outcome)
    summary, gains = [], []
    for (surrogate, attack, eps, norm), by_training in groups.items():
        shared = {'surrogate': surrogate, 'attack': attack, 'eps': eps, 'norm': norm}
        success = {
            name: np.stack([np.stack(list(outcome.targets.values())) for outcome in group])
            for name, group in by_training.items()
        }
        for name, group in by_training.items():
            summary.append(
                transfer.SummaryRow(
                    **shared,
                    **transfer.mean_success(success[name]),
                    training=name,
                    white_box_rate=float(np.mean([outcome.surrogate.mean() for outcome in group])),
                    natural_accuracy=float(np.mean([outcome.right.mean() for outcome in group])),
                    gradient_evaluations=group[0].gradient_evaluations,
                )
            )
            if name not in baselines:
                against = {baseline: success[baseline] for baseline in baselines}
                rows = transfer.gains(success[name], against)
                gains += [transfer.GainRow(**shared, training=name, **row) for row in rows]
    return summary, gains

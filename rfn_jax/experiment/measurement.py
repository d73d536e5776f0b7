"""Stage 4: measure the adversarial sets on the targets, and write the result tables."""

import dataclasses

import numpy as np

from rfn_jax import data, training, transfer
from rfn_jax.core import digests, errors, io, preemption, processes, tables
from rfn_jax.experiment import crafting, examples, selection
from rfn_jax.experiment import inputs as inputs_lib
from rfn_jax.experiment import plan as plan_lib
from rfn_jax.experiment import workdir as workdir_lib

TABLES = ('transfer.csv', 'natural.csv', 'summary.csv', 'gains.csv', 'examples.csv', 'examples.npz')
RECORD = 'measured.json'
AT_ONCE = 16  # networks in one pass over the test images


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was measured on one adversarial set.

    Attributes:
      job: The adversarial set.
      targets: For each target, whether it misclassifies each adversarial image: booleans `[N]`.
      surrogate: The same for the surrogate itself.
    """

    job: crafting.Job
    targets: dict[str, np.ndarray]
    surrogate: np.ndarray

    @property
    def gradient_evaluations(self) -> int:
        """Number of gradients of the surrogate for one example."""
        return self.job.attack.attack.gradient_evaluations


def measure(plan: plan_lib.Plan, workdir: workdir_lib.Workdir) -> None:
    """Writes `transfer.csv`, `natural.csv`, `summary.csv`, `gains.csv` and the examples of the report.

    Nothing is measured if the tables are intact and were written from the same adversarial sets and weights. Finally,
    `measured.json` records which config and which tables belong together: a report shows no others.

    Raises:
      InputError: The early-stopping epochs were not chosen with this config, or an adversarial set is missing or was made
        from something else.
      RunError: A checkpoint cannot be read, or a file cannot be written.
    """
    inputs = inputs_lib.Inputs(plan, workdir)
    eligible = inputs.test_examples()
    jobs = list(crafting.jobs(inputs, selection.stopping_epochs(inputs)))
    selected = processes.on_first(lambda: {n: digests.of_file(workdir.result(n)) for n in selection.TABLES})()
    _check_crafted(jobs, eligible)
    _check_targets(inputs, jobs)
    workdir.record_config()
    workdir.define_imported(plan)
    last_record, inputs_digest = _last_record(workdir), _inputs_digest(inputs, jobs, eligible)
    measured = last_record.get('tables')
    if last_record.get('inputs') != inputs_digest or not _are_unchanged(workdir, measured):
        # Until all tables are there, they are not to be shown.
        processes.on_first(io.write_json)(workdir.result(RECORD), {'tables': None})
        measured = _write_tables(inputs, jobs, eligible)
    table_digests = {name: measured[name] for name in TABLES} | selected
    record = {'config': plan.config_sha256, 'inputs': inputs_digest, 'tables': table_digests}
    if record != last_record:
        processes.on_first(io.write_json)(workdir.result(RECORD), record)


@processes.on_first
def _check_crafted(jobs: list[crafting.Job], eligible: data.ImageDataset) -> None:
    """Checks that no set is missing, before the first is measured."""
    for job in jobs:
        job.images(eligible)


@processes.on_first
def _last_record(workdir: workdir_lib.Workdir) -> dict:
    """The record of the last measurement; empty if it is missing or damaged."""
    try:
        return io.read_json_object(workdir.result(RECORD))
    except errors.InputError:
        return {}


@processes.on_first
def _are_unchanged(workdir: workdir_lib.Workdir, recorded: object) -> bool:
    """Whether the tables of this stage still have the recorded hashes."""
    try:
        return isinstance(recorded, dict) and all(
            digests.of_file(workdir.result(name)) == recorded.get(name) for name in TABLES
        )
    except errors.InputError:  # one is missing
        return False


def _write_tables(inputs: inputs_lib.Inputs, jobs: list[crafting.Job], eligible: data.ImageDataset) -> dict[str, str]:
    """Measures all adversarial sets, writes the tables of this stage, and returns their hashes."""
    workdir = inputs.workdir
    natural = _natural(inputs, jobs)
    outcomes = []
    with workdir.console.task('measure', len(jobs)) as advance:
        for job in jobs:
            preemption.check()
            surrogate = inputs.classifier(job.network, job.crafted.epoch)
            attacked = job.images(eligible)
            own = transfer.successes({job.network.model: surrogate}, attacked, eligible, **inputs.batching)
            on_targets = transfer.successes(inputs.targets, attacked, eligible, **inputs.batching)
            outcomes.append(Outcome(job, on_targets, own[job.network.model]))
            advance(success=float(np.mean([s.mean() for s in on_targets.values()])))
    summary, gains = _compare(outcomes, natural, inputs.plan.baselines)
    contents = {
        'transfer.csv': tables.content(transfer.TransferRow, _transfer_rows(outcomes)),
        'natural.csv': tables.content(transfer.NaturalRow, list(natural.values())),
        'summary.csv': tables.content(transfer.SummaryRow, summary),
        'gains.csv': tables.content(transfer.GainRow, gains),
        **examples.contents(inputs, jobs, eligible),
    }
    for name, content in contents.items():
        processes.on_first(io.write_bytes)(workdir.result(name), content)
    return {name: digests.of_bytes(content) for name, content in contents.items()}


def _check_targets(inputs: inputs_lib.Inputs, jobs: list[crafting.Job]) -> None:
    """Checks that no target is a validation target or a surrogate under another name.

    Raises:
      InputError: A target is.
    """
    names = {
        role: {inputs.digest(n, n.last_epoch): n.model for n in inputs.plan.of_role(role)}
        for role in ('target', 'validation_target')
    }
    for digest, name in names['validation_target'].items():
        if digest in names['target']:
            raise plan_lib.reused_target_error(name, names['target'][digest])
    for job in jobs:
        target = names['target'].get(job.origin['weights_sha256'])
        if target is not None:
            raise errors.InputError(
                f'target {target!r} is the {job.network.title} after epoch {job.crafted.epoch}: success on it is white-box'
            )


def _inputs_digest(inputs: inputs_lib.Inputs, jobs: list[crafting.Job], eligible: data.ImageDataset) -> str:
    """A hash of everything that the tables depend on."""
    networks = [network for network in inputs.plan.networks if network.role != 'surrogate']
    network_digests = {network.folder: inputs.digest(network, network.last_epoch) for network in networks}
    sets = [[job.origin, job.attack.attack.gradient_evaluations] for job in jobs]
    return digests.of_plain([sets, network_digests, eligible.ids.tolist(), len(inputs.test), inputs.plan.baselines])


def _transfer_rows(outcomes: list[Outcome]) -> list[transfer.TransferRow]:
    rows = []
    for outcome in outcomes:
        measured = [(name, transfer.BLACK_BOX, success) for name, success in outcome.targets.items()]
        measured.append((outcome.job.network.model, transfer.WHITE_BOX, outcome.surrogate))
        rows += [
            transfer.TransferRow.of(outcome.job.crafted, *success, gradient_evaluations=outcome.gradient_evaluations)
            for success in measured
        ]
    return rows


def _natural(inputs: inputs_lib.Inputs, jobs: list[crafting.Job]) -> dict[tuple, transfer.NaturalRow]:
    """Natural accuracy on the test images: that of the attacked surrogates, the targets and the validation targets."""
    networks = {}
    for job in jobs:
        about = _about(job)
        networks[tuple(about.values())] = (about, job.network, job.crafted.epoch)
    for network in (*inputs.plan.of_role('target'), *inputs.plan.of_role('validation_target')):
        about = network.about(network.last_epoch)
        networks[tuple(about.values())] = (about, network, network.last_epoch)
    by_digest = {inputs.digest(network, epoch): (network, epoch) for _, network, epoch in networks.values()}
    measured = {}
    for start in range(0, len(by_digest), AT_ONCE):
        digests_at_once = list(by_digest)[start : start + AT_ONCE]
        classifiers = {digest: inputs.classifier(*by_digest[digest]) for digest in digests_at_once}
        predicted = training.predict_all(classifiers, inputs.test, **inputs.batching)
        measured |= {digest: (predicted.correct(digest), predicted.in_top5[digest]) for digest in classifiers}
    return {
        key: transfer.NaturalRow.of(*measured[inputs.digest(network, epoch)], **about)
        for key, (about, network, epoch) in networks.items()
    }


def _about(job: crafting.Job) -> dict[str, str | int]:
    """The columns of `natural.csv` that describe the surrogate of an adversarial set."""
    return {**job.network.about(job.crafted.epoch), 'training': job.crafted.training}


def _compare(
    outcomes: list[Outcome], natural: dict[tuple, transfer.NaturalRow], baselines: tuple[str, ...]
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
                    natural_accuracy=float(
                        np.mean([natural[tuple(_about(outcome.job).values())].accuracy for outcome in group])
                    ),
                    gradient_evaluations=group[0].gradient_evaluations,
                )
            )
            if name not in baselines:
                against = {baseline: success[baseline] for baseline in baselines if baseline in success}
                rows = transfer.gains(success[name], against)
                gains += [transfer.GainRow(**shared, training=name, **row) for row in rows]
    return summary, gains

"""Stage 4: measure the adversarial sets on the targets, and write the result tables."""

import dataclasses
import hashlib
import json

import numpy as np

from rfn_jax import training, transfer
from rfn_jax.core import errors, files
from rfn_jax.experiment import context, crafting, examples, validation

TABLES = ('transfer.csv', 'natural.csv', 'summary.csv', 'gains.csv', 'examples.csv', 'examples.npz')


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


def measure(ctx: context.Context) -> None:
    """Writes `transfer.csv`, `natural.csv`, `summary.csv`, `gains.csv` and the examples of the report.

    Nothing is done if they are there, whole, and were written from the same adversarial sets and weights.

    Raises:
      InputError: An adversarial set is missing or was made from something else.
      RunError: A checkpoint cannot be read, or a file not written.
    """
    stops = validation.validate(ctx)
    jobs = list(crafting.jobs(ctx, stops))
    for job in jobs:
        if not transfer.is_made_from(job.directory, job.origin):
            raise errors.InputError(
                f'{job.directory} holds no adversarial set of this config, weights and examples; craft it first '
                '(rfn-jax craft)'
            )
    if _is_done(ctx, inputs := _inputs(ctx, jobs)):
        return

    targets, eligible = ctx.targets, ctx.test_examples
    right: dict[str, np.ndarray] = {}
    outcomes = []
    with ctx.console.task('measure', len(jobs)) as advance:
        for job in jobs:
            images = transfer.load(job.directory).images
            surrogate = ctx.trained(job.network, job.crafted.epoch)
            own = transfer.successes({job.network.model: surrogate}, images, eligible, **ctx.batching)
            weights = job.origin['weights_sha256']
            if weights not in right:  # the same for all attacks on a checkpoint
                right[weights] = training.predict(surrogate, ctx.splits.test, **ctx.batching) == ctx.splits.test.labels
            on_targets = transfer.successes(targets, images, eligible, **ctx.batching)
            outcomes.append(Outcome(job, on_targets, own[job.network.model], right[weights]))
            advance(success=float(np.mean([s.mean() for s in on_targets.values()])))
    summary, gains = _compare(outcomes, ctx.plan.baselines)
    files.write_csv(ctx.result('transfer.csv'), transfer.TRANSFER_COLUMNS, _transfer_rows(outcomes))
    files.write_csv(ctx.result('natural.csv'), transfer.NATURAL_COLUMNS, _natural_rows(ctx, outcomes))
    files.write_csv(ctx.result('summary.csv'), transfer.SUMMARY_COLUMNS, summary)
    files.write_csv(ctx.result('gains.csv'), transfer.GAIN_COLUMNS, gains)
    examples.write(ctx, jobs)
    files.write_json(ctx.result('measured.json'), {'inputs': inputs, 'tables': _digests(ctx)})


def _is_done(ctx: context.Context, inputs: str) -> bool:
    """Whether the tables are those that were written from the same inputs."""
    try:
        return files.read_json(ctx.result('measured.json')) == {'inputs': inputs, 'tables': _digests(ctx)}
    except (errors.InputError, OSError):  # not measured so far, or a file is damaged
        return False


def _inputs(ctx: context.Context, jobs: list[crafting.Job]) -> str:
    """A hash of everything that the tables depend on."""
    networks = [network for network in ctx.plan.networks if network.role != 'surrogate']
    inputs = [job.origin for job in jobs], [ctx.digest(network, network.last_epoch) for network in networks]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _digests(ctx: context.Context) -> dict[str, str]:
    return {name: hashlib.sha256(ctx.result(name).read_bytes()).hexdigest() for name in TABLES}


def _transfer_rows(outcomes: list[Outcome]) -> list[dict]:
    rows = []
    for outcome in outcomes:
        crafted = outcome.job.crafted
        rows += [transfer.transfer_row(crafted, name, transfer.BLACK_BOX, s) for name, s in outcome.targets.items()]
        rows.append(transfer.transfer_row(crafted, crafted.surrogate, transfer.WHITE_BOX, outcome.surrogate))
    return rows


def _natural_rows(ctx: context.Context, outcomes: list[Outcome]) -> list[dict]:
    """Natural accuracy on the test images: of the surrogates that were attacked, and of the targets of both kinds."""
    rows = {}
    for outcome in outcomes:
        crafted = outcome.job.crafted
        key = (crafted.surrogate, 'surrogate', crafted.training, crafted.seed, crafted.epoch)
        rows[key] = transfer.natural_row(*key, outcome.right)
    for role, classifiers in (('target', ctx.targets), ('validation_target', ctx.validation_targets)):
        predicted = transfer.predictions(classifiers, ctx.splits.test, **ctx.batching)
        for network in ctx.plan.of_role(role):
            key = (network.model, role, network.training, network.seed, network.last_epoch)
            rows[key] = transfer.natural_row(*key, predicted[network.model] == ctx.splits.test.labels)
    return list(rows.values())


def _compare(outcomes: list[Outcome], baselines: list[str]) -> tuple[list[dict], list[dict]]:
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
                {
                    **shared,
                    **transfer.mean_success(success[name]),
                    'training': name,
                    'white_box_rate': float(np.mean([outcome.surrogate.mean() for outcome in group])),
                    'natural_accuracy': float(np.mean([outcome.right.mean() for outcome in group])),
                    'gradient_evaluations': group[0].job.crafted.gradient_evaluations,
                }
            )
            if name not in baselines:
                against = {baseline: success[baseline] for baseline in baselines}
                gains += [{**shared, 'training': name, **row} for row in transfer.gains(success[name], against)]
    return summary, gains

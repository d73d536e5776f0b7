"""The few examples that the report shows as images: clean, perturbed, and what every model says of them."""

import dataclasses
import io

import numpy as np

from rfn_jax import transfer
from rfn_jax.core import files
from rfn_jax.experiment import context, crafting

SHOWN = 8
COLUMNS = (
    'surrogate', 'training', 'seed', 'epoch', 'attack', 'eps', 'norm', 'target', 'kind', 'id', 'label',
    'clean_prediction', 'adversarial_prediction',
)  # fmt: skip


def write(ctx: context.Context, jobs: list[crafting.Job]) -> None:
    """Writes `examples.csv` (predictions) and `examples.npz` (images) of the first surrogate, attack and seed.

    The examples are the first eligible ones of as many classes as there are, so they are not picked by their outcome.

    Args:
      ctx: The experiment.
      jobs: All adversarial sets.

    Raises:
      RunError: A file cannot be written.
    """
    positions = _one_of_each_class(ctx.test_examples.labels)
    shown = ctx.test_examples.take(positions)
    first = jobs[0].crafted
    arrays, rows = {'ids': shown.ids, 'clean': shown.images}, []
    for job in jobs:
        crafted = job.crafted
        if (crafted.surrogate, crafted.attack, crafted.seed) != (first.surrogate, first.attack, first.seed):
            continue
        images = transfer.load(job.directory).images[positions]
        arrays[f'adversarial_{crafted.training}'] = images
        surrogate = ctx.trained(job.network, crafted.epoch)
        attacked = dataclasses.replace(shown, images=images)
        kinds = {transfer.BLACK_BOX: ctx.targets, transfer.WHITE_BOX: {crafted.surrogate: surrogate}}
        for kind, classifiers in kinds.items():
            clean, adversarial = (
                transfer.predictions(classifiers, examples, **ctx.batching) for examples in (shown, attacked)
            )
            for name in classifiers:
                rows += [
                    _row(crafted, name, kind, *values, shown.class_names)
                    for values in zip(shown.ids, shown.labels, clean[name], adversarial[name], strict=True)
                ]
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    files.write_bytes(ctx.result('examples.npz'), content.getvalue())
    files.write_csv(ctx.result('examples.csv'), COLUMNS, rows)


def _one_of_each_class(labels: np.ndarray) -> np.ndarray:
    """The positions of the first example of each class, then of the first others, `SHOWN` in all if there are."""
    firsts = np.sort(np.unique(labels, return_index=True)[1])
    others = np.setdiff1d(np.arange(len(labels)), firsts)
    return np.sort(np.concatenate([firsts, others])[:SHOWN])


def _row(crafted: transfer.Crafted, target: str, kind: str, identity, label, clean, adversarial, names) -> dict:
    fields = dataclasses.asdict(crafted)
    del fields['gradient_evaluations']
    return {
        **fields,
        'target': target,
        'kind': kind,
        'id': int(identity),
        'label': names[label],
        'clean_prediction': names[clean],
        'adversarial_prediction': names[adversarial],
    }

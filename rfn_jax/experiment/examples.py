"""The few examples that the report shows as images, clean and attacked, with the predictions of every model."""

import dataclasses

import numpy as np

from rfn_jax import data, transfer
from rfn_jax.core import io, tables
from rfn_jax.experiment import crafting
from rfn_jax.experiment import inputs as inputs_lib

SHOWN = 8


def contents(inputs: inputs_lib.Inputs, jobs: list[crafting.Job], eligible: data.ImageDataset) -> dict[str, bytes]:
    """Contents of `examples.npz` (images) and `examples.csv` (predictions) for the first surrogate, attack and seed.

    The examples are the first eligible ones of as many classes as possible, so they are not picked by their outcome.

    Args:
      inputs: The inputs of the experiment.
      jobs: All adversarial sets.
      eligible: The eligible test images, unchanged.
    """
    positions = _one_of_each_class(eligible.labels)
    shown = eligible.take(positions)
    first = jobs[0].crafted
    arrays, rows = {'ids': shown.ids, 'clean': shown.images}, []
    for job in jobs:
        crafted = job.crafted
        if (crafted.surrogate, crafted.attack, crafted.seed) != (first.surrogate, first.attack, first.seed):
            continue
        attacked = dataclasses.replace(shown, images=job.images(shown))
        arrays[f'adversarial_{crafted.training}'] = attacked.images
        surrogate = inputs.classifier(job.network, crafted.epoch)
        kinds = {transfer.BLACK_BOX: inputs.targets, transfer.WHITE_BOX: {crafted.surrogate: surrogate}}
        for kind, classifiers in kinds.items():
            clean, adversarial = (
                transfer.predictions(classifiers, examples, **inputs.batching) for examples in (shown, attacked)
            )
            for name in classifiers:
                rows += [
                    _row(crafted, name, kind, *values, shown.class_names)
                    for values in zip(shown.ids, shown.labels, clean[name], adversarial[name], strict=True)
                ]
    return {'examples.npz': io.npz_bytes(**arrays), 'examples.csv': tables.content(transfer.ExampleRow, rows)}


def _one_of_each_class(labels: np.ndarray) -> np.ndarray:
    """The positions of the first example of each class, then of the first of the others, up to `SHOWN` in all."""
    firsts = np.sort(np.unique(labels, return_index=True)[1])
    others = np.setdiff1d(np.arange(len(labels)), firsts)
    return np.sort(np.concatenate([firsts, others])[:SHOWN])


def _row(
    crafted: transfer.Crafted, target: str, kind: str, example_id, label, clean, adversarial, names
) -> transfer.ExampleRow:
    return transfer.ExampleRow(
        **dataclasses.asdict(crafted),
        target=target,
        kind=kind,
        id=int(example_id),
        label=names[label],
        clean_prediction=names[clean],
        adversarial_prediction=names[adversarial],
    )

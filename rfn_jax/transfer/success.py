"""Predictions of several targets on one set of images."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jax.sharding import Mesh

from rfn_jax import data, models, training
from rfn_jax.transfer import torch_target

Target = models.Classifier | torch_target.TorchTarget


def predictions(
    targets: Mapping[str, Target], examples: data.ImageDataset, *, batch_size: int, mesh: Mesh
) -> dict[str, np.ndarray]:
    """For each target, the classes int32 `[N]` that it predicts for N examples.

    A target is a `Classifier`, another callable pytree from images in [0, 1] to logits, or a `TorchTarget`.
    """
    return {
        name: target.predict(examples.images, batch_size=batch_size)
        if isinstance(target, torch_target.TorchTarget)
        else training.predict(target, examples, batch_size=batch_size, mesh=mesh)
        for name, target in targets.items()
    }


def successes(
    targets: Mapping[str, Target],
    images: np.ndarray,
    examples: data.ImageDataset,
    *,
    batch_size: int,
    mesh: Mesh,
    target_labels: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """For each target, whether each adversarial image succeeds on it: booleans `[N]`.

    An image succeeds if the target misclassifies it or, with target labels, if the target predicts its target label.

    Args:
      targets: The targets by name; see `predictions`.
      images: Adversarial images uint8 `[N, H, W, C]`.
      examples: Their originals, with the true labels.
      batch_size: Examples in a batch.
      mesh: Mesh with the axis `'data'`.
      target_labels: Target classes `[N]` of a targeted attack.
    """
    attacked = dataclasses.replace(examples, images=images)
    predicted = predictions(targets, attacked, batch_size=batch_size, mesh=mesh)
    if target_labels is not None:
        return {name: classes == np.asarray(target_labels) for name, classes in predicted.items()}
    return {name: classes != examples.labels for name, classes in predicted.items()}

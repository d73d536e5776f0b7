"""A network that was saved, by its folder alone."""

import os
import pathlib

from rfn_jax import models, training
from rfn_jax.core import console as console_lib
from rfn_jax.core import errors, workdir
from rfn_jax.experiment import context


def saved_classifier(
    folder: os.PathLike | str, epoch: int | None = None
) -> tuple[models.Classifier, dict[str, object]]:
    """The classifier of a folder: of imported weights, or of a network in a work directory.

    Args:
      folder: Such as `runs/cifar10/surrogates/resnet18-rfn/seed0`, or a directory of imported weights.
      epoch: Which checkpoint of a network; the last one by default.

    Returns:
      The classifier, and what is known of it as plain values: `model` (name and options), `num_classes`, `image_shape`,
      `mean`, `std`, `epoch`.

    Raises:
      InputError: The folder is neither, or has no such checkpoint.
      RunError: The checkpoint is damaged.
    """
    folder = pathlib.Path(folder)
    if (folder / 'weights.json').exists():
        if epoch not in (None, training.IMPORTED_EPOCH):
            raise errors.InputError(f'{folder} holds imported weights, which have no epochs, got epoch {epoch}')
        found = training.read_weights(folder)
        classifier, spec, shape, epoch = training.load_weights(folder), found.model, found.image_shape, 0
    else:
        root = next((parent for parent in folder.absolute().parents if workdir.is_bound(parent)), None)
        if root is None:
            raise errors.InputError(
                f'{folder} is neither imported weights nor a network of a work directory, such as runs/x/targets/vgg'
            )
        ctx = context.open_workdir(workdir.bound_config(root), root, console_lib.Console())
        name = folder.absolute().relative_to(root).as_posix()
        network = next((network for network in ctx.plan.networks if network.folder == name), None)
        if network is None:
            raise errors.unknown_name(f'network of {root}:', name, [network.folder for network in ctx.plan.networks])
        epoch = network.last_epoch if epoch is None else epoch
        classifier, spec, shape = ctx.trained(network, epoch), network.spec, ctx.splits.train.image_shape
    about = {
        'model': dict(spec),
        'num_classes': classifier.num_classes,
        'image_shape': list(shape),
        'mean': list(classifier.mean),
        'std': list(classifier.std),
        'epoch': epoch,
    }
    return classifier, about

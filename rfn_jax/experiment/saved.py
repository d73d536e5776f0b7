"""Networks that can be loaded by their folder alone: what they are is written beside their checkpoints."""

import os
import pathlib

from rfn_jax import models, training
from rfn_jax.core import errors, files, workdir
from rfn_jax.experiment import context
from rfn_jax.experiment import plan as plan_lib

ABOUT = 'classifier.json'
FIELDS = ('model', 'num_classes', 'image_shape', 'mean', 'std')


def describe(ctx: context.Context, network: plan_lib.Network) -> None:
    """Writes what `saved_classifier` needs to know of a trained network into its folder, if it is not there."""
    path = ctx.workdir / network.folder / ABOUT
    if not path.exists():
        template = ctx.template(network)
        values = (network.spec, template.num_classes, ctx.splits.train.image_shape, template.mean, template.std)
        about = dict(zip(FIELDS, values, strict=True))
        if network.weights:  # exports keep the naming of the weights that the training started from
            about['naming'] = training.read_weights(network.weights).origin.get('naming')
        files.write_json(path, about)


def saved_classifier(
    folder: os.PathLike | str, epoch: int | None = None
) -> tuple[models.Classifier, dict[str, object]]:
    """The classifier of a folder: of imported weights, or of a network in a work directory.

    Args:
      folder: Such as `runs/cifar10/surrogates/resnet18-rfn/seed0`, or a directory of imported weights.
      epoch: Which checkpoint of a network; the last one by default.

    Returns:
      The classifier, and what is known of it as plain values: `model` (name and options), `num_classes`, `image_shape`,
      `mean`, `std`, `epoch`; of imported weights also `naming`, of the keys that they had.

    Raises:
      InputError: The folder is neither, or has no such checkpoint.
      RunError: The checkpoint is damaged.
    """
    folder = pathlib.Path(folder)
    if (folder / 'weights.json').exists():
        if epoch not in (None, training.IMPORTED_EPOCH):
            raise errors.InputError(f'{folder} holds imported weights, which have no epochs, got epoch {epoch}')
        found = training.read_weights(folder)
        about = workdir.plain({name: getattr(found, name) for name in FIELDS})
        about |= {'epoch': training.IMPORTED_EPOCH, 'naming': found.origin.get('naming')}
        return training.load_weights(folder), about
    if not (folder / ABOUT).exists():
        raise errors.InputError(
            f'{folder} is neither imported weights nor a network of a work directory, such as runs/x/targets/vgg'
        )
    about = files.read_json(folder / ABOUT)
    try:
        spec, num_classes, shape, mean, std = (about[name] for name in FIELDS)
        module = models.from_spec(spec, num_classes=num_classes)
        template = models.abstract(module, tuple(shape), num_classes=num_classes, mean=mean, std=std)
    except (KeyError, TypeError) as error:
        raise errors.InputError(f'{folder / ABOUT} is damaged: it must hold {", ".join(FIELDS)}') from error
    with training.CheckpointStore(folder / 'checkpoints', keep_all=True) as store:
        epochs = store.epochs()
        epoch = max(epochs, default=None) if epoch is None else epoch
        if epoch not in epochs:
            raise errors.InputError(f'{folder} has no checkpoint of epoch {epoch}; there are {epochs}')
        return store.restore_classifier(epoch, template), {**about, 'epoch': epoch}

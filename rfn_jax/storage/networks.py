"""Network directories: the description and the checkpoints of a network that was trained here, imported or shipped.

<directory>/network.json           the architecture, its normalization and classes, and its origin
<directory>/checkpoints/<epoch>    Orbax checkpoints of the variables; an imported network has only one, of epoch 0
"""

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rfn_jax import models, training
from rfn_jax.core import checks, errors, io, processes
from rfn_jax.storage import description

IMPORTED_EPOCH = 0


def save(
    directory: os.PathLike[str] | str,
    classifier: models.Classifier,
    *,
    architecture: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    class_names: tuple[str, ...] = (),
    origin: Mapping[str, Any] | None = None,
) -> description.Network:
    """Saves a classifier as a network directory with one checkpoint, completely or not at all.

    Args:
      directory: Where to save it; must be missing or empty.
      classifier: The classifier.
      architecture: Name and options, as `models.MODELS` takes them.
      image_shape: `(H, W, C)` of the images that the variables were made for.
      class_names: Names of the classes, in the order of the logits; empty if they are unknown.
      origin: Where the weights come from, as plain values.

    Returns:
      The contents of `network.json`.

    Raises:
      InputError: The directory is not empty, or a value is invalid or not plain.
      RunError: It could not be written.
    """
    folder = io.absolute(directory)
    check_missing_or_empty(folder)
    network = description.Network.of(
        classifier, architecture=architecture, image_shape=image_shape, class_names=class_names, origin=origin
    )
    state = training.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=classifier.variables['params'],
        batch_stats=classifier.variables.get('batch_stats', {}),
        opt_state=(),
    )
    temporary = folder.parent / f'.{folder.name}.{os.getpid()}'
    try:
        temporary.mkdir(parents=True)
        with training.CheckpointStore(temporary / 'checkpoints', keep_all=True) as store:
            store.save(IMPORTED_EPOCH, state)
            store.wait()
            digest = store.digest(IMPORTED_EPOCH)
        network = dataclasses.replace(network, variables_sha256=digest)
        description.write(temporary, network)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except OSError as error:
        raise errors.RunError(f'could not write {folder}: {error.strerror or error}') from error
    finally:
        with contextlib.suppress(OSError):
            temporary.rmtree(missing_ok=True)
    return network


def check_missing_or_empty(directory: os.PathLike[str] | str) -> None:
    """Checks that a network can be saved in a directory.

    Raises:
      InputError: The directory is not empty.
    """
    folder = io.absolute(directory)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise errors.InputError(f'{folder} already exists; choose another directory for the network, or delete it')


def open_checkpoint(
    directory: os.PathLike[str] | str, epoch: int | None = None
) -> tuple[training.CheckpointStore, int]:
    """Opens the checkpoints of a network directory for reading; also returns the epoch to use: `epoch`, or the last one.

    Raises:
      InputError: The directory is not a network directory or is damaged, or the checkpoint does not exist.
      RunError: The checkpoint is damaged, or is not the one that `network.json` was written for.
    """
    network = description.read(directory)
    if epoch is not None:
        checks.integer('epoch', epoch, at_least=0)
    store = training.CheckpointStore(io.absolute(directory) / 'checkpoints')
    epochs = store.epochs()
    remedy = 'train it first (rfn-jax train)' if network.variables_sha256 is None else 'import the network again'
    if not epochs:
        raise errors.InputError(f'{directory} has no checkpoint yet; {remedy}')
    chosen = max(epochs) if epoch is None else epoch
    if chosen not in epochs:
        raise errors.InputError(f'{directory} has no checkpoint of epoch {chosen}, only of {epochs}; {remedy}')
    if network.variables_sha256 not in (None, actual := store.digest(chosen)):
        raise errors.RunError(
            f'the checkpoint in {directory} has variables of SHA-256 {actual}, but its {description.FILE} says '
            f'{network.variables_sha256}; import the network again'
        )
    return store, chosen


def template(
    directory: os.PathLike[str] | str, epoch: int | None = None, *, image_shape: tuple[int, int, int] | None = None
) -> models.Classifier:
    """Returns the classifier of a network directory with shapes in place of values, after checking the variables against it.

    Args:
      directory: The directory.
      epoch: Which checkpoint to check; by default the last one.
      image_shape: `(H, W, C)` of the images; by default that of the images that the variables were made for.

    Raises:
      InputError: As for `open_checkpoint`; also if the variables do not match the architecture, or if the architecture does
        not accept the images.
      RunError: As for `open_checkpoint`.
    """
    return _template(directory, *open_checkpoint(directory, epoch), image_shape)


def load(
    directory: os.PathLike[str] | str, epoch: int | None = None, *, image_shape: tuple[int, int, int] | None = None
) -> models.Classifier:
    """Loads the classifier of a network directory onto the default device.

    Args:
      directory: The directory, either of imported weights or of a network in a work directory, such as
        `runs/cifar10/surrogates/resnet18-rfn/seed0`.
      epoch: Which checkpoint to load; by default the last one.
      image_shape: `(H, W, C)` of the images that it will classify; by default that of the images that the variables were made
        for. Variables whose shape depends on it, such as learned positions, must match.

    Raises:
      InputError: As for `template`.
      RunError: As for `template`.
    """
    store, chosen = open_checkpoint(directory, epoch)
    found: models.Classifier = jax.device_put(
        store.restore_classifier(chosen, _template(directory, store, chosen, image_shape))
    )
    return found


def template_in_all_processes(
    directory: os.PathLike[str] | str, epoch: int | None = None, *, image_shape: tuple[int, int, int]
) -> models.Classifier:
    """Like `template`; with several processes, the first one reads the directory for all of them."""
    if not processes.are_several():
        return template(directory, epoch, image_shape=image_shape)

    def read() -> dict[str, Any]:
        template(directory, epoch, image_shape=image_shape)
        return dataclasses.asdict(description.read(directory))

    return description.Network.of_json(processes.on_first(read)()).template(image_shape)


def load_in_all_processes(
    directory: os.PathLike[str] | str, epoch: int | None = None, *, image_shape: tuple[int, int, int]
) -> models.Classifier:
    """Like `load`; with several processes, the first one reads the directory for all of them."""
    if not processes.are_several():
        return load(directory, epoch, image_shape=image_shape)
    like = template_in_all_processes(directory, epoch, image_shape=image_shape)
    variables = processes.arrays_from_first(
        lambda: load(directory, epoch, image_shape=image_shape).variables, like.variables
    )
    found: models.Classifier = jax.device_put(dataclasses.replace(like, variables=variables))
    return found


def _template(
    directory: os.PathLike[str] | str,
    store: training.CheckpointStore,
    epoch: int,
    image_shape: tuple[int, int, int] | None,
) -> models.Classifier:
    network = description.read(directory)
    shape = network.image_shape if image_shape is None else description.check_image_shape(image_shape)
    try:
        classifier = network.template(shape)
        store.check_classifier(epoch, classifier)
    except errors.InputError as error:
        if shape == network.image_shape:
            raise errors.InputError(
                f'the network in {directory} is not what its {description.FILE} says: {error}; if that file is damaged, '
                f'delete it and {description.REMEDY}'
            ) from error
        raise errors.InputError(
            f'the network in {directory} was made for images of shape {network.image_shape}, and does not accept images of '
            f'shape {shape}: {error}'
        ) from error
    return classifier

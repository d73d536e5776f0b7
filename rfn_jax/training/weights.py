"""Weights that were not trained here: a directory with one checkpoint and where it came from.

<directory>/weights.json      the model, its normalisation, the origin of the weights and hashes
<directory>/checkpoints/0     an Orbax checkpoint, as a training writes it
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from rfn_jax import models
from rfn_jax.core import errors, files
from rfn_jax.training import checkpoints
from rfn_jax.training import state as state_lib

EPOCH = 0


@dataclasses.dataclass(frozen=True)
class Weights:
    """What `weights.json` holds.

    Attributes:
      model: Name and options of the architecture, as `models.MODELS` takes them.
      num_classes: Number of classes K.
      image_shape: `(H, W, C)` that the variables were made for.
      mean: Mean of each channel, for images in [0, 1].
      std: Standard deviation of each channel.
      variables_sha256: Hash of the variables.
      origin: Where they come from: the name and SHA-256 of a file, the naming of its keys, and what did not fit.
    """

    model: Mapping[str, object]
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    variables_sha256: str
    origin: Mapping[str, object]

    @property
    def sha256(self) -> str:
        """Hash of everything that decides on the logits: the model, the normalisation and the variables."""
        decisive = [self.model, self.num_classes, self.mean, self.std, self.variables_sha256]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def save_weights(
    directory: os.PathLike | str,
    classifier: models.Classifier,
    *,
    model: Mapping[str, object],
    image_shape: tuple[int, int, int],
    origin: Mapping[str, object],
) -> Weights:
    """Saves a classifier as a directory of weights, whole or not at all.

    Args:
      directory: Where; must not be there, or be empty.
      classifier: The classifier.
      model: Name and options of its architecture.
      image_shape: `(H, W, C)` that its variables were made for.
      origin: Where the weights come from, as plain values.

    Returns:
      What `weights.json` holds.

    Raises:
      InputError: The directory holds something, or `model` or `origin` are not plain.
      RunError: It could not be written.
    """
    directory = pathlib.Path(directory).absolute()
    check_is_free(directory)
    try:
        model, origin = json.loads(json.dumps([model, origin]))
    except (TypeError, ValueError) as error:
        raise errors.InputError(f'model and origin of weights may hold only plain values: {error}') from error
    state = state_lib.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=classifier.variables['params'],
        batch_stats=classifier.variables.get('batch_stats', {}),
        opt_state=(),
    )
    temporary = directory.parent / f'.{directory.name}.{os.getpid()}'
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise errors.RunError(f'could not write {directory}: {error.strerror or error}') from error
    try:
        with checkpoints.CheckpointStore(temporary / 'checkpoints', keep_all=True) as store:
            store.save(EPOCH, state)
            store.wait()
            digest = store.digest(EPOCH)
        shape = tuple(map(int, image_shape))
        weights = Weights(model, classifier.num_classes, shape, classifier.mean, classifier.std, digest, origin)
        files.write_json(temporary / 'weights.json', dataclasses.asdict(weights))
        if directory.exists():
            directory.rmdir()
        temporary.rename(directory)
    except OSError as error:
        raise errors.RunError(f'could not write {directory}: {error.strerror or error}') from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return weights


def check_is_free(directory: os.PathLike | str) -> None:
    """Checks that weights can be saved in a directory.

    Raises:
      InputError: It holds something already.
    """
    directory = pathlib.Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise errors.InputError(f'{directory} is there already; choose another directory for the weights, or delete it')


def read_weights(directory: os.PathLike | str) -> Weights:
    """What a directory of weights says of itself.

    Raises:
      InputError: It is not there, or its `weights.json` is damaged.
    """
    path = pathlib.Path(directory) / 'weights.json'
    if not path.exists():
        if (path.parent / 'checkpoints').exists():
            raise errors.InputError(
                f'{directory} holds no imported weights, but a network that was trained; rfn_jax.experiment.saved_classifier '
                'loads it'
            )
        raise errors.InputError(
            f'{directory} holds no imported weights (there is no {path.name}); make it with rfn-jax import-weights'
        )
    found = files.read_json(path)
    fields = {field.name for field in dataclasses.fields(Weights)}
    try:
        if found.keys() != fields:
            raise ValueError(f'it must hold {", ".join(sorted(fields))}')
        tuples = {name: tuple(found[name]) for name in ('image_shape', 'mean', 'std')}
        return Weights(**{**found, **tuples})
    except (AttributeError, TypeError, ValueError) as error:
        raise errors.InputError(f'{path} is damaged: {error}') from error


def open_weights(directory: os.PathLike | str) -> checkpoints.CheckpointStore:
    """The checkpoint of a directory of weights.

    Raises:
      InputError: As `read_weights`.
      RunError: The checkpoint is damaged, or not the one that `weights.json` was written for.
    """
    weights = read_weights(directory)
    store = checkpoints.CheckpointStore(pathlib.Path(directory) / 'checkpoints', keep_all=True)
    try:
        digest = store.digest(EPOCH)
        if digest != weights.variables_sha256:
            raise errors.RunError(
                f'the checkpoint in {directory} has variables of SHA-256 {digest}, and its weights.json says '
                f'{weights.variables_sha256}; import the weights again'
            )
    except errors.RunError:
        store.close()
        raise
    return store


def abstract_weights(
    directory: os.PathLike | str, *, image_shape: tuple[int, int, int] | None = None
) -> models.Classifier:
    """The classifier of a directory of weights with shapes in place of values.

    Args:
      directory: The directory.
      image_shape: `(H, W, C)` of the images; by default those that the weights were made for.

    Raises:
      InputError: As `read_weights`; also if the variables do not fit the model, or the model the images.
      RunError: As `open_weights`.
    """
    weights = read_weights(directory)
    shape = image_shape or weights.image_shape
    module = models.from_spec(weights.model, num_classes=weights.num_classes)
    template = models.abstract(module, shape, num_classes=weights.num_classes, mean=weights.mean, std=weights.std)
    with open_weights(directory) as store:
        try:
            store.check_classifier(EPOCH, template)
        except errors.InputError as error:
            raise errors.InputError(
                f'the weights in {directory} were made for images of shape {weights.image_shape}, and do not fit those of '
                f'{tuple(shape)}: {error}'
            ) from error
    return template


def load_weights(directory: os.PathLike | str, *, image_shape: tuple[int, int, int] | None = None) -> models.Classifier:
    """The classifier of a directory of weights, on the default device.

    Args:
      directory: The directory, as `save_weights` or `rfn-jax import-weights` makes it.
      image_shape: `(H, W, C)` of the images that it is for; by default those that the weights were made for. Variables
        whose shape depends on it, such as learned positions, must fit.

    Raises:
      InputError: As `abstract_weights`.
      RunError: As `open_weights`.
    """
    template = abstract_weights(directory, image_shape=image_shape)
    with open_weights(directory) as store:
        return jax.device_put(store.restore_classifier(EPOCH, template))

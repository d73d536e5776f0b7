"""Network directories: what a network is, and its checkpoints, whether it was trained here, imported or shipped.

<directory>/network.json           the architecture, its normalization and classes, and where it comes from
<directory>/checkpoints/<epoch>    Orbax checkpoints of the variables; a network that was imported has one, of epoch 0
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from rfn_jax import models, training
from rfn_jax.core import checks, digests, errors, io

FILE = 'network.json'
IMPORTED_EPOCH = 0
FIRST_LAYOUT = ('weights.json', 'classifier.json')  # files of directories that earlier versions made


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """What `network.json` holds.

    Attributes:
      architecture: Name and options, as `models.MODELS` takes them.
      num_classes: Number of classes K.
      class_names: Names of the classes, in the order of the logits; empty if they are not known.
      image_shape: `(H, W, C)` that the variables were made for.
      mean: Mean of each channel, for images in [0, 1].
      std: Standard deviation of each channel.
      origin: Where the weights come from, as plain values: of imported ones the name and SHA-256 of a file, the naming of its
        keys, and what did not fit.
      variables_sha256: Hash of the variables, of a network with one checkpoint; None for one in training, whose checkpoints
        hold their own.
    """

    architecture: Mapping[str, Any]
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    variables_sha256: str | None = None

    @classmethod
    def of(
        cls,
        classifier: models.Classifier,
        *,
        architecture: Mapping[str, Any],
        image_shape: tuple[int, int, int],
        class_names: tuple[str, ...] = (),
        origin: Mapping[str, Any] | None = None,
    ) -> 'Network':
        """The description of a classifier, which knows its own number of classes and normalization.

        Raises:
          InputError: `architecture` or `origin` are not plain values.
        """
        try:
            architecture, origin = json.loads(json.dumps([architecture, origin or {}]))
        except (TypeError, ValueError) as error:
            raise errors.InputError(
                f'architecture and origin of a network may hold only plain values: {error}'
            ) from error
        return cls(
            architecture=architecture,
            num_classes=classifier.num_classes,
            class_names=tuple(class_names),
            image_shape=tuple(map(int, image_shape)),
            mean=classifier.mean,
            std=classifier.std,
            origin=origin,
        )

    def template(self, image_shape: tuple[int, int, int] | None = None) -> models.Classifier:
        """The classifier with shapes in place of values, for images of `image_shape`, by default its own.

        Raises:
          InputError: The architecture is unknown, or does not take such images.
        """
        module = models.from_spec(self.architecture, num_classes=self.num_classes)
        shape = tuple(image_shape or self.image_shape)
        return models.abstract(module, shape, num_classes=self.num_classes, mean=self.mean, std=self.std)

    def sha256(self, variables_sha256: str) -> str:
        """Hash of everything that decides on the logits: architecture, normalization and variables."""
        return digests.of_plain([self.architecture, self.num_classes, self.mean, self.std, variables_sha256])


def describe(directory: os.PathLike | str, network: Network) -> None:
    """Writes `network.json`, before the first checkpoint is there.

    Raises:
      RunError: It could not be written.
    """
    io.write_json(epath.Path(directory) / FILE, dataclasses.asdict(network))


def save(
    directory: os.PathLike | str,
    classifier: models.Classifier,
    *,
    architecture: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    class_names: tuple[str, ...] = (),
    origin: Mapping[str, Any] | None = None,
) -> Network:
    """Saves a classifier as a network directory with one checkpoint, whole or not at all.

    Args:
      directory: Where; must not be there, or be empty.
      classifier: The classifier.
      architecture: Name and options, as `models.MODELS` takes them.
      image_shape: `(H, W, C)` that the variables were made for.
      class_names: Names of the classes, in the order of the logits, if they are known.
      origin: Where the weights come from, as plain values.

    Returns:
      What `network.json` holds.

    Raises:
      InputError: The directory holds something, or a value is not plain.
      RunError: It could not be written.
    """
    directory = io.absolute(directory)
    check_is_free(directory)
    network = Network.of(
        classifier, architecture=architecture, image_shape=image_shape, class_names=class_names, origin=origin
    )
    state = training.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=classifier.variables['params'],
        batch_stats=classifier.variables.get('batch_stats', {}),
        opt_state=(),
    )
    temporary = directory.parent / f'.{directory.name}.{os.getpid()}'
    try:
        temporary.mkdir(parents=True)
        with training.CheckpointStore(temporary / 'checkpoints', keep_all=True) as store:
            store.save(IMPORTED_EPOCH, state)
            store.wait()
            digest = store.digest(IMPORTED_EPOCH)
        network = dataclasses.replace(network, variables_sha256=digest)
        describe(temporary, network)
        if directory.exists():
            directory.rmdir()
        temporary.rename(directory)
    except OSError as error:
        raise errors.RunError(f'could not write {directory}: {error.strerror or error}') from error
    finally:
        with contextlib.suppress(OSError):
            temporary.rmtree(missing_ok=True)
    return network


def check_is_free(directory: os.PathLike | str) -> None:
    """Checks that a network can be saved in a directory.

    Raises:
      InputError: It holds something already.
    """
    directory = io.absolute(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise errors.InputError(f'{directory} is there already; choose another directory for the network, or delete it')


def read(directory: os.PathLike | str) -> Network:
    """What a network directory says of itself.

    Raises:
      InputError: It is not there or of an earlier version, or its `network.json` is damaged.
    """
    directory = io.absolute(directory)
    path = directory / FILE
    if not path.exists():
        if any((directory / name).exists() for name in FIRST_LAYOUT):
            raise errors.InputError(
                f'{directory} was made by an earlier version of rfn_jax, whose networks this one cannot read: import or '
                'train it again'
            )
        raise errors.InputError(
            f'{directory} is no network directory (there is no {FILE}); rfn-jax train and rfn-jax import-weights make them'
        )
    found = io.read_json(path)
    fields = {field.name for field in dataclasses.fields(Network)}
    try:
        if found.keys() != fields:
            raise ValueError(f'it must hold {", ".join(sorted(fields))}')
        tuples = {name: tuple(found[name]) for name in ('image_shape', 'mean', 'std', 'class_names')}
        network = Network(**{**found, **tuples})
        checks.integer('num_classes', network.num_classes, at_least=1)
        for size in network.image_shape:
            checks.integer('image_shape', size, at_least=1)
        for value in (*network.mean, *network.std):
            checks.number('mean and std', value)
        if len(network.image_shape) != 3 or not all(
            isinstance(d, dict) for d in (network.architecture, network.origin)
        ):
            raise ValueError('image_shape must be [H, W, C], and architecture and origin objects')
        return network
    except (AttributeError, TypeError, ValueError) as error:
        raise errors.InputError(f'{path} is damaged: {error}') from error


@contextlib.contextmanager
def checkpoints(
    directory: os.PathLike | str, epoch: int | None = None
) -> Iterator[tuple[training.CheckpointStore, int]]:
    """The checkpoints of a network directory, and the epoch to take: `epoch`, or the last one that is there.

    Raises:
      InputError: As `read`; also if there is no such checkpoint.
      RunError: The checkpoint is damaged, or not the one that `network.json` was written for.
    """
    network = read(directory)
    if epoch is not None:
        checks.integer('epoch', epoch, at_least=0)
    path = io.absolute(directory) / 'checkpoints'
    if not path.exists():
        raise errors.InputError(f'{directory} has no checkpoint yet; train it first (rfn-jax train)')
    with training.CheckpointStore(path, keep_all=True) as store:
        epochs = store.epochs()
        chosen = max(epochs, default=None) if epoch is None else epoch
        if chosen not in epochs:
            raise errors.InputError(
                f'{directory} has no checkpoint of epoch {chosen}, there are {epochs}; train it first (rfn-jax train)'
            )
        if network.variables_sha256 not in (None, found := store.digest(chosen)):
            raise errors.RunError(
                f'the checkpoint in {directory} has variables of SHA-256 {found}, and its {FILE} says '
                f'{network.variables_sha256}; import the network again'
            )
        yield store, chosen


def fits(
    directory: os.PathLike | str, epoch: int | None = None, *, image_shape: tuple[int, int, int] | None = None
) -> models.Classifier:
    """The classifier of a network directory with shapes in place of values, after its variables were checked against it.

    Args:
      directory: The directory.
      epoch: Which checkpoint; the last one by default.
      image_shape: `(H, W, C)` of the images; by default those that the variables were made for.

    Raises:
      InputError: As `checkpoints`; also if the variables do not fit the architecture, or the architecture the images.
      RunError: As `checkpoints`.
    """
    network = read(directory)
    template = network.template(image_shape)
    with checkpoints(directory, epoch) as (store, chosen):
        try:
            store.check_classifier(chosen, template)
        except errors.InputError as error:
            raise errors.InputError(
                f'the network in {directory} was made for images of shape {network.image_shape}, and does not fit those of '
                f'{tuple(image_shape or network.image_shape)}: {error}'
            ) from error
    return template


def load(
    directory: os.PathLike | str, epoch: int | None = None, *, image_shape: tuple[int, int, int] | None = None
) -> models.Classifier:
    """The classifier of a network directory, on the default device.

    Args:
      directory: The directory: of imported weights, or of a network in a work directory, such as
        `runs/cifar10/surrogates/resnet18-rfn/seed0`.
      epoch: Which checkpoint; the last one by default.
      image_shape: `(H, W, C)` of the images that it is for; by default those that the variables were made for. Variables
        whose shape depends on it, such as learned positions, must fit.

    Raises:
      InputError: As `fits`.
      RunError: As `fits`.
    """
    template = fits(directory, epoch, image_shape=image_shape)
    with checkpoints(directory, epoch) as (store, chosen):
        return jax.device_put(store.restore_classifier(chosen, template))

"""What a network is: `network.json` in a network directory."""

import dataclasses
import json
import numbers
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from rfn_jax import models
from rfn_jax.core import checks, digests, errors, io

FILE = 'network.json'
FIRST_LAYOUT = ('weights.json', 'classifier.json')  # files of directories that earlier versions made
AGAIN = 'run rfn-jax train, which writes it again in a work directory, or import the network again'


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

    Raises:
      InputError: A value has another type, or is out of its range.
    """

    architecture: Mapping[str, Any]
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    variables_sha256: str | None = None

    def __post_init__(self):
        checks.integer('num_classes', self.num_classes, at_least=1)
        channels = checked_image_shape(self.image_shape)[-1]
        for name, above in (('mean', None), ('std', 0)):
            values = _tuple(name, getattr(self, name))
            if len(values) not in (1, channels):
                raise errors.InputError(
                    f'{name} must be one number, or one for each of {channels} channels, got {values}'
                )
            for value in values:
                checks.number(name, value, above=above)
        names = _tuple('class_names', self.class_names)
        if len(names) not in (0, self.num_classes) or not all(isinstance(name, str) for name in names):
            raise errors.InputError(f'class_names must be empty, or {self.num_classes} strings, got {names!r:.200}')
        for name in ('architecture', 'origin'):
            if not isinstance(getattr(self, name), Mapping):
                raise errors.InputError(f'{name} must be a mapping, got {getattr(self, name)!r:.200}')
        if not isinstance(self.variables_sha256, str | None):
            raise errors.InputError(f'variables_sha256 must be a string, got {self.variables_sha256!r:.200}')

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
          InputError: `architecture` or `origin` are not plain values, or another value is wrong.
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
            image_shape=checked_image_shape(image_shape),
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
        shape = self.image_shape if image_shape is None else checked_image_shape(image_shape)
        return models.abstract(module, shape, num_classes=self.num_classes, mean=self.mean, std=self.std)

    def sha256(self, variables_sha256: str) -> str:
        """Hash of everything that decides on the logits: architecture, normalization and variables."""
        return digests.of_plain([self.architecture, self.num_classes, self.mean, self.std, variables_sha256])


def write(directory: os.PathLike | str, network: Network) -> None:
    """Writes `network.json`, before the first checkpoint is there.

    Raises:
      RunError: It could not be written.
    """
    io.write_json(epath.Path(directory) / FILE, dataclasses.asdict(network))


def read(directory: os.PathLike | str) -> Network:
    """What a network directory says of itself.

    Raises:
      InputError: It is not there or of an earlier version, or its `network.json` is missing or damaged.
    """
    directory = io.absolute(directory)
    path = directory / FILE
    if not path.exists():
        raise _missing(directory)
    try:
        found = io.read_json_object(path)
    except errors.InputError as error:
        raise errors.InputError(f'{error}; delete it and {AGAIN}') from error
    fields = sorted(field.name for field in dataclasses.fields(Network))
    try:
        if sorted(found) != fields:
            raise errors.InputError(f'it must hold {", ".join(fields)}, it holds {list(found)!r:.200}')
        return Network(**{name: tuple(value) if isinstance(value, list) else value for name, value in found.items()})
    except errors.InputError as error:
        raise errors.InputError(f'{path} is damaged: {error}; delete it and {AGAIN}') from error


def checked_image_shape(value: Any) -> tuple[int, int, int]:
    """The shape of an image as a tuple of integers.

    Raises:
      InputError: It is not `(H, W, C)`, three integers of at least 1.
    """
    try:
        sizes = tuple(value)
    except TypeError:
        sizes = ()
    if len(sizes) != 3 or not all(isinstance(size, numbers.Integral) and size >= 1 for size in sizes):
        raise errors.InputError(f'image_shape must be (H, W, C), three integers of at least 1, got {value!r:.200}')
    return tuple(map(int, sizes))


def _missing(directory: epath.Path) -> errors.InputError:
    if any((directory / name).exists() for name in FIRST_LAYOUT):
        return errors.InputError(
            f'{directory} was made by an earlier version of rfn_jax, whose networks this one cannot read: import or train it '
            'again'
        )
    if (directory / 'checkpoints').exists():
        return errors.InputError(f'{directory} has checkpoints and no {FILE}, which says what they are of; {AGAIN}')
    return errors.InputError(
        f'{directory} is no network directory (there is no {FILE}); rfn-jax train and rfn-jax import-weights make them'
    )


def _tuple(name: str, value: Any) -> tuple:
    if not isinstance(value, tuple):
        raise errors.InputError(f'{name} must be a tuple, got {value!r:.200}')
    return value

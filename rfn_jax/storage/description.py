"""The description of a network: `network.json` in a network directory."""

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
EARLIER_FILES = ('weights.json', 'classifier.json')  # in network directories made by earlier versions
REMEDY = 'run rfn-jax train, which writes it again in a work directory, or import the network again'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """The contents of `network.json`.

    Attributes:
      architecture: Name and options, as `models.MODELS` takes them.
      num_classes: Number of classes K.
      class_names: Names of the classes, in the order of the logits; empty if they are unknown.
      image_shape: `(H, W, C)` of the images that the variables were made for.
      mean: Mean of each channel, for images in [0, 1].
      std: Standard deviation of each channel.
      origin: Where the weights come from, as plain values: for imported weights, the name and SHA-256 of the file, the naming
        scheme of its keys, and what did not match.
      variables_sha256: Hash of the variables of a network with a single checkpoint; None for a network in training, each of
        whose checkpoints holds its own hash.

    Raises:
      InputError: A value is of the wrong type or out of range.
    """

    architecture: Mapping[str, Any]
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    variables_sha256: str | None = None

    def __post_init__(self) -> None:
        checks.integer('num_classes', self.num_classes, at_least=1)
        channels = check_image_shape(self.image_shape)[-1]
        for name, above in (('mean', None), ('std', 0)):
            values = _check_tuple(name, getattr(self, name))
            if len(values) not in (1, channels):
                raise errors.InputError(
                    f'{name} must be one number, or one for each of the {channels} channels, got {values}'
                )
            for value in values:
                checks.number(name, value, above=above)
        names = _check_tuple('class_names', self.class_names)
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
        """Describes a classifier, which provides the number of classes and the normalization.

        Raises:
          InputError: `architecture` or `origin` does not hold plain values, or another value is invalid.
        """
        try:
            architecture, origin = json.loads(json.dumps([architecture, origin or {}]))
        except (TypeError, ValueError) as error:
            raise errors.InputError(
                f'the architecture and origin of a network may hold only plain values: {error}'
            ) from error
        return cls(
            architecture=architecture,
            num_classes=classifier.num_classes,
            class_names=tuple(class_names),
            image_shape=check_image_shape(image_shape),
            mean=classifier.mean,
            std=classifier.std,
            origin=origin,
        )

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> 'Network':
        """Returns the network that a JSON object describes; raises like the constructor."""
        fields: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
        return cls(**fields)

    def template(self, image_shape: tuple[int, int, int] | None = None) -> models.Classifier:
        """Returns the classifier with shapes in place of values, for images of `image_shape`, by default that of the network.

        Raises:
          InputError: The architecture is unknown, or does not accept such images.
        """
        module = models.from_spec(self.architecture, num_classes=self.num_classes)
        shape = self.image_shape if image_shape is None else check_image_shape(image_shape)
        return models.abstract(module, shape, num_classes=self.num_classes, mean=self.mean, std=self.std)

    def sha256(self, variables_sha256: str) -> str:
        """Returns the hash of everything that determines the logits: architecture, normalization and variables."""
        return digests.of_plain([self.architecture, self.num_classes, self.mean, self.std, variables_sha256])


def write(directory: os.PathLike[str] | str, network: Network) -> None:
    """Writes `network.json`, which a network in training needs before its first checkpoint.

    Raises:
      RunError: It could not be written.
    """
    io.write_json(epath.Path(directory) / FILE, dataclasses.asdict(network))


def read(directory: os.PathLike[str] | str) -> Network:
    """Reads the description of the network in a network directory.

    Raises:
      InputError: The directory is missing or from an earlier version, or its `network.json` is missing or damaged.
    """
    path = io.absolute(directory) / FILE
    if not path.exists():
        raise _missing_error(path.parent)
    try:
        values = io.read_json_object(path)
    except errors.InputError as error:
        raise errors.InputError(f'{error}; delete it and {REMEDY}') from error
    fields = sorted(field.name for field in dataclasses.fields(Network))
    try:
        if sorted(values) != fields:
            raise errors.InputError(f'it must hold {", ".join(fields)}, but holds {list(values)!r:.200}')
        return Network.of_json(values)
    except errors.InputError as error:
        raise errors.InputError(f'{path} is damaged: {error}; delete it and {REMEDY}') from error


def check_image_shape(value: Any) -> tuple[int, int, int]:
    """Checks the shape of an image and returns it as a tuple of integers.

    Raises:
      InputError: It is not `(H, W, C)`, three integers of at least 1.
    """
    try:
        sizes = tuple(value)
    except TypeError:
        sizes = ()
    if len(sizes) != 3 or not all(isinstance(size, numbers.Integral) and int(size) >= 1 for size in sizes):
        raise errors.InputError(f'image_shape must be (H, W, C), three integers of at least 1, got {value!r:.200}')
    height, width, channels = map(int, sizes)
    return height, width, channels


def _missing_error(directory: epath.Path) -> errors.InputError:
    if any((directory / name).exists() for name in EARLIER_FILES):
        return errors.InputError(
            f'{directory} was made by an earlier version of rfn_jax, whose networks this version cannot read: import or '
            'train it again'
        )
    if (directory / 'checkpoints').exists():
        return errors.InputError(f'{directory} has checkpoints but no {FILE}, which describes their network; {REMEDY}')
    return errors.InputError(
        f'{directory} is not a network directory (it has no {FILE}); rfn-jax train and rfn-jax import-weights make one'
    )


def _check_tuple(name: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise errors.InputError(f'{name} must be a tuple, got {value!r:.200}')
    return value

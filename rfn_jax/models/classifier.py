"""A trained network as one value: the module, its variables and the normalization of its images."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from rfn_jax.core import checks, errors


@struct.dataclass
class Classifier:
    """A pytree that maps images in [0, 1] to logits: `classifier(images)`.

    The variables are its leaves; the rest is static. A compiled function that takes a classifier as an argument therefore
    serves all checkpoints of an architecture.

    Attributes:
      variables: Flax variables, `{'params': ..., 'batch_stats': ...}`.
      module: Flax module of the zoo, or any module that maps normalized images to logits through
        `module.apply(variables, x, train=False)`.
      num_classes: Number of classes K.
      mean: Mean of each channel, in [0, 1], or one number for all channels.
      std: Standard deviation of each channel, above 0, or one number for all channels.
    """

    variables: Mapping[str, Any]
    module: nn.Module = struct.field(pytree_node=False)
    num_classes: int = struct.field(pytree_node=False)
    mean: tuple[float, ...] = struct.field(pytree_node=False, default=(0.0,))
    std: tuple[float, ...] = struct.field(pytree_node=False, default=(1.0,))

    def __post_init__(self):
        for name, above in (('mean', None), ('std', 0)):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not values:
                raise errors.InputTypeError(
                    f'{name} must be a tuple with one number, or with one number for each channel, got {values!r}'
                )
            for value in values:
                checks.number(name, value, above=above)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits `[B, K]` for float images `[B, H, W, C]` in [0, 1], in evaluation mode."""
        return self.module.apply(self.variables, normalize(images, self.mean, self.std), train=False)


def full_precision(classifier: Classifier) -> Classifier:
    """The same network, computed in float32, as in evaluation; `dtype` matters only for training and attacks."""
    dtype = getattr(classifier.module, 'dtype', None)
    if dtype is None or jnp.dtype(dtype) == jnp.float32:
        return classifier
    return classifier.replace(module=classifier.module.clone(dtype=jnp.float32))


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """`(images - mean) / std` for each channel; images `[B, H, W, C]` are in [0, 1]."""
    return (images - jnp.asarray(mean, images.dtype)) / jnp.asarray(std, images.dtype)


def initialize(
    module: nn.Module, key: jax.Array, image_shape: tuple[int, int, int], *, num_classes: int, **normalization
) -> Classifier:
    """Makes a classifier with initial variables, by one jitted `init`.

    Args:
      module: Flax module of the zoo.
      key: Random key for the initial values.
      image_shape: `(H, W, C)`.
      num_classes: Number of classes K; the module must return as many logits.
      **normalization: `mean` and `std`, as in `abstract`.

    Raises:
      InputError: As in `abstract`.
    """
    template = abstract(module, image_shape, num_classes=num_classes, **normalization)
    # Optimizing a program that runs only once takes longer than it saves. The option is known to exist on the CPU.
    options = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else None
    init = jax.jit(_init, static_argnums=(0, 1), compiler_options=options)
    return template.replace(variables=init(module, image_shape, key))


def abstract(
    module: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    num_classes: int,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> Classifier:
    """Makes a classifier whose variables are `jax.ShapeDtypeStruct`s, as a template for checkpoints. Nothing is computed.

    Args:
      module: Flax module of the zoo.
      image_shape: `(H, W, C)`.
      num_classes: Number of classes K; the module must return as many logits.
      mean: Mean of each channel, or one number for all channels.
      std: Standard deviation of each channel, above 0, or one number for all channels.

    Raises:
      InputError: `std` is not positive, `mean` or `std` does not match the number of channels, or the module does not
        return `num_classes` logits.
    """
    mean, std = tuple(map(float, mean)), tuple(map(float, std))
    if any(len(values) not in (1, image_shape[-1]) for values in (mean, std)):
        raise errors.InputError(
            f'mean {mean} and std {std} must have one value for all channels or one for each of the {image_shape[-1]}'
        )
    variables = jax.eval_shape(lambda: _init(module, image_shape, jax.random.key(0)))
    classifier = Classifier(variables, module, num_classes, mean, std)
    logits = jax.eval_shape(lambda c, x: c(x), classifier, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    if logits.shape != (1, num_classes):
        raise errors.InputError(
            f'the model returns logits of shape {logits.shape[1:]}, but num_classes is {num_classes}'
        )
    return classifier


def _init(module: nn.Module, image_shape: tuple[int, int, int], key: jax.Array):
    return module.init(key, jnp.zeros((1, *image_shape), jnp.float32), train=False)

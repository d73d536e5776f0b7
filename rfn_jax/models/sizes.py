"""The sizes of the named models: number of parameters, and multiply-adds for one image.

`sizes.csv` stores them, so that listing models needs no tracing; `python -m rfn_jax.models.sizes` regenerates it.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from rfn_jax import models
from rfn_jax.core import tables

TABLE = pathlib.Path(__file__).with_name('sizes.csv')

# Names of forms for small images begin with `cifar_`, and general factories are listed here. The rest are torchvision's,
# except for those that begin with one of `OTHERS`.
CIFAR = 'cifar_'
OTHERS = ('efficientnet_lite', 'mobilenet_v1')
IMAGE_SIZES = {
    'inception_v3': 299,
    'efficientnet_lite1': 240,
    'efficientnet_lite2': 260,
    'efficientnet_lite3': 280,
    'efficientnet_lite4': 300,
}
GENERAL = (
    'convnext',
    'densenet',
    'efficientnet',
    'efficientnet_lite',
    'mlp',
    'mobilenet_v3',
    'preact_resnet',
    'resnet',
    'squeezenet',
    'swin',
    'vgg',
    'vit',
)


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a named model, for its usual images and number of classes.

    Attributes:
      model: Name of the model.
      image_size: Rows and columns of the images.
      num_classes: Number of classes.
      parameters: Number of parameters.
      gflops: Multiply-adds of convolutions and matrix products for one image, in units of 10^9 (which torchvision and most
        papers call GFLOPs).
      torchvision: Name of torchvision's model with the same definition; empty if there is none.
    """

    model: str
    image_size: int
    num_classes: int
    parameters: int
    gflops: float
    torchvision: str


@functools.cache
def table() -> dict[str, Size]:
    """The sizes of all complete models, by name."""
    return {size.model: size for size in tables.read(TABLE, Size)}


def template(name: str) -> models.Classifier:
    """A named model for its usual images and number of classes, with shapes in place of values.

    Raises:
      InputError: The name is unknown.
    """
    image_size, num_classes = _image_size(name), 10 if name.startswith(CIFAR) else 1000
    module = models.MODELS.make(name, num_classes=num_classes)
    return models.abstract(module, (image_size, image_size, 3), num_classes=num_classes)


def measure(name: str, classifier: models.Classifier) -> Size:
    """Measures a named model by tracing its `template`; nothing is computed."""
    image_size = _image_size(name)
    return Size(
        model=name,
        image_size=image_size,
        num_classes=classifier.num_classes,
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(classifier.variables['params'])),
        gflops=multiply_adds(classifier, (image_size, image_size, 3)) / 1e9,
        torchvision='' if name.startswith((CIFAR, *OTHERS)) else name,
    )


def multiply_adds(classifier: models.Classifier, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of convolutions and matrix products for one image `(H, W, C)`, by tracing; nothing is computed."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda c, x: c(x))(classifier, images).jaxpr
    return sum(_multiply_adds(equation) for equation in _equations(jaxpr))


def complete_models() -> list[str]:
    """The names of the models that need no options, unlike the general factories."""
    return [name for name in models.MODELS if name not in GENERAL]


def _image_size(name: str) -> int:
    return 32 if name.startswith(CIFAR) else IMAGE_SIZES.get(name, 224)


def _equations(jaxpr) -> Iterator:
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _equations(inner)


def _multiply_adds(equation) -> int:
    if equation.primitive.name == 'conv_general_dilated':
        kernel = equation.invars[1].aval.shape  # [h, w, C / groups, D]
        return math.prod(equation.outvars[0].aval.shape) * math.prod(kernel[:3])
    if equation.primitive.name == 'dot_general':
        (contracted, _), _ = equation.params['dimension_numbers']
        shape = np.asarray(equation.invars[0].aval.shape)
        return math.prod(equation.outvars[0].aval.shape) * math.prod(shape[list(contracted)].tolist())
    return 0


def main() -> None:
    """Writes `sizes.csv` next to this file."""
    tables.write(TABLE, Size, [measure(name, template(name)) for name in complete_models()])


if __name__ == '__main__':
    main()

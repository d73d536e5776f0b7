"""Inception v3: blocks of parallel and factorised convolutions, and an auxiliary head for training.

Szegedy et al., Rethinking the Inception Architecture for Computer Vision, https://arxiv.org/abs/1512.00567; the definition of
torchvision, whose names are the names of the parameters.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.core import errors
from rfn_jax.models import hooks, layers, ranges, zoo

_kernel_init = nn.initializers.normal(0.1)
_conv_norm = functools.partial(
    layers.ConvNorm,
    activation=hooks.Relu,
    norm=functools.partial(layers.batch_norm, epsilon=1e-3),
    kernel_init=_kernel_init,
)

# Each function below gives the branches of a kind of block. `conv(x, name, *steps)` is a chain of convolutions with
# (features, kernel) or (features, kernel, strides); the parts of one that has several are numbered, `name_1`, `name_2`.


def _square(x: jax.Array, conv: Callable, *, pooled: int) -> list[jax.Array]:
    return [
        conv(x, 'branch1x1', (64, 1)),
        conv(x, 'branch5x5', (48, 1), (64, 5)),
        conv(x, 'branch3x3dbl', (64, 1), (96, 3), (96, 3)),
        conv(_mean(x), 'branch_pool', (pooled, 1)),
    ]


def _square_reduction(x: jax.Array, conv: Callable) -> list[jax.Array]:
    return [
        conv(x, 'branch3x3', (384, 3, 2)),
        conv(x, 'branch3x3dbl', (64, 1), (96, 3), (96, 3, 2)),
        layers.max_pool(x, 3, strides=2),
    ]


def _factorised(x: jax.Array, conv: Callable, *, inner: int) -> list[jax.Array]:
    row, column = (1, 7), (7, 1)
    return [
        conv(x, 'branch1x1', (192, 1)),
        conv(x, 'branch7x7', (inner, 1), (inner, row), (192, column)),
        conv(x, 'branch7x7dbl', (inner, 1), (inner, column), (inner, row), (inner, column), (192, row)),
        conv(_mean(x), 'branch_pool', (192, 1)),
    ]


def _factorised_reduction(x: jax.Array, conv: Callable) -> list[jax.Array]:
    return [
        conv(x, 'branch3x3', (192, 1), (320, 3, 2)),
        conv(x, 'branch7x7x3', (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)),
        layers.max_pool(x, 3, strides=2),
    ]


def _split(x: jax.Array, conv: Callable) -> list[jax.Array]:
    single = conv(x, 'branch3x3_1', (384, 1))
    double = conv(x, 'branch3x3dbl', (448, 1), (384, 3))
    return [
        conv(x, 'branch1x1', (320, 1)),
        conv(single, 'branch3x3_2a', (384, (1, 3))),
        conv(single, 'branch3x3_2b', (384, (3, 1))),
        conv(double, 'branch3x3dbl_3a', (384, (1, 3))),
        conv(double, 'branch3x3dbl_3b', (384, (3, 1))),
        conv(_mean(x), 'branch_pool', (192, 1)),
    ]


def _mean(x: jax.Array) -> jax.Array:
    return layers.avg_pool(x, 3, strides=1, padding=1)


BLOCKS = {
    'Mixed_5b': functools.partial(_square, pooled=32),
    'Mixed_5c': functools.partial(_square, pooled=64),
    'Mixed_5d': functools.partial(_square, pooled=64),
    'Mixed_6a': _square_reduction,
    'Mixed_6b': functools.partial(_factorised, inner=128),
    'Mixed_6c': functools.partial(_factorised, inner=160),
    'Mixed_6d': functools.partial(_factorised, inner=160),
    'Mixed_6e': functools.partial(_factorised, inner=192),
    'Mixed_7a': _factorised_reduction,
    'Mixed_7b': _split,
    'Mixed_7c': _split,
}


class InceptionBlock(nn.Module):
    """Branches side by side; convolutions with stride 2 have no padding.

    Attributes:
      branches: Gives the branches, from features and a function that makes convolutions.
      width: Factor of all channels.
      dtype: Type of the computation.
    """

    branches: Callable[[jax.Array, Callable], Sequence[jax.Array]]
    width: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[B, H, W, C]` to features; `train` chooses batch statistics over running ones."""

        def conv(x, name, *steps):
            for number, (features, kernel, *strides) in enumerate(steps, start=1):
                block = _conv_norm(
                    layers.scaled(features, self.width),
                    kernel,
                    *strides,
                    padding=0 if strides else None,
                    dtype=self.dtype,
                    name=f'{name}_{number}' if len(steps) > 1 else name,
                )
                x = block(x, train=train)
            return x

        return jnp.concatenate(self.branches(x, conv), axis=-1)


class AuxiliaryHead(nn.Module):
    """A classifier of features inside the network; in training its float32 logits are recorded.

    Attributes:
      num_classes: Number of classes.
      width: Factor of all channels.
      dtype: Type of the computation.
    """

    LEAST_SIZE = 17

    num_classes: int
    width: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> None:
        """Sows the logits of features `[B, H, W, C]` in `'auxiliary_logits'` if `train`.

        Raises:
          InputError: The features have too few rows or columns.
        """
        if min(x.shape[1:3]) < self.LEAST_SIZE:
            raise errors.InputError(
                f'{x.shape[1]} x {x.shape[2]} features are too few for the auxiliary head of Inception v3, which needs '
                f'{self.LEAST_SIZE} rows and columns, those of an image of 299 x 299 pixels; train with auxiliary=False'
            )
        narrow, wide = (layers.scaled(features, self.width) for features in (128, 768))
        conv0 = _conv_norm(narrow, 1, dtype=self.dtype, name='conv0')
        init1 = nn.initializers.normal(0.01)
        conv1 = _conv_norm(wide, 5, padding=0, kernel_init=init1, dtype=self.dtype, name='conv1')
        x = conv0(layers.avg_pool(x, 5, strides=3), train=train)
        x = layers.mean_over_positions(conv1(x, train=train)).astype(jnp.float32)
        logits = layers.dense(self.num_classes, kernel_init=nn.initializers.normal(0.001), name='fc')(x)
        if train:
            self.sow('auxiliary_logits', 'logits', logits)


class InceptionV3(nn.Module):
    """Inception v3; `__call__` gives logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      short_stem: Whether the stem is one 3x3 convolution that keeps the image as large as it is, for small images.
      auxiliary: Whether there is an auxiliary head, whose logits training records in `'auxiliary_logits'`.
      auxiliary_weight: Weight of its cross-entropy in the loss of training.
      dropout: Probability of dropout before the last layer, in training.
      width: Factor of all channels.
      dtype: Type of the computation; parameters, statistics and logits stay float32.
    """

    num_classes: int
    short_stem: bool = False
    auxiliary: bool = True
    auxiliary_weight: float = 0.4
    dropout: float = 0.5
    width: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalised images `[B, H, W, C]` to logits `[B, num_classes]`."""
        ranges.check_image(x, 7 if self.short_stem else 75, 'Inception v3')
        x = self._stem(x, train)
        for name, branches in BLOCKS.items():
            x = InceptionBlock(branches, self.width, self.dtype, name=name)(x, train=train)
            if self.auxiliary and name == 'Mixed_6e' and (train or self.is_initializing()):
                # What is smaller than training needs can be evaluated, so its parameters are made whatever the image.
                size = AuxiliaryHead.LEAST_SIZE
                features = x if train else jnp.zeros((1, size, size, x.shape[-1]), x.dtype)
                AuxiliaryHead(self.num_classes, self.width, self.dtype, name='AuxLogits')(features, train=train)
        x = layers.mean_over_positions(x).astype(jnp.float32)
        x = nn.Dropout(self.dropout, deterministic=not train, name='dropout')(x)
        return layers.dense(self.num_classes, kernel_init=_kernel_init, name='fc')(x)

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        def conv(x, name, features, kernel, **options):
            features = layers.scaled(features, self.width)
            return _conv_norm(features, kernel, **options, dtype=self.dtype, name=name)(x, train=train)

        if self.short_stem:
            return conv(x, 'Conv2d_1a_3x3', 192, 3)
        x = conv(x, 'Conv2d_1a_3x3', 32, 3, strides=2, padding=0)
        x = conv(x, 'Conv2d_2a_3x3', 32, 3, padding=0)
        x = layers.max_pool(conv(x, 'Conv2d_2b_3x3', 64, 3), 3, strides=2)
        x = conv(x, 'Conv2d_3b_1x1', 80, 1)
        return layers.max_pool(conv(x, 'Conv2d_4a_3x3', 192, 3, padding=0), 3, strides=2)


@zoo.MODELS.register
def inception_v3(
    num_classes: int,
    *,
    auxiliary: bool = True,
    auxiliary_weight: float = 0.4,
    dropout: float = 0.5,
    width: float = 1.0,
    dtype=jnp.float32,
) -> InceptionV3:
    """Inception v3 for images of 299 x 299 pixels; the attributes of `InceptionV3` are the arguments.

    Images may have 75 x 75 pixels and more, but training with the auxiliary head needs 299 x 299. The published weights of
    torchvision want images with mean and standard deviation 0.5 in every channel: its option `transform_input`, which they
    turn on, undoes the usual normalisation to this one.

    Raises:
      InputError: A number is out of its range.
    """
    ranges.check_positive(width=width)
    ranges.check_weights(auxiliary_weight=auxiliary_weight)
    ranges.check_rates(dropout=dropout)
    numbers = (float(auxiliary_weight), float(dropout), float(width))
    return InceptionV3(num_classes, False, auxiliary, *numbers, dtype)


@zoo.MODELS.register
def cifar_inception_v3(num_classes: int, *, dropout: float = 0.5, width: float = 1.0, dtype=jnp.float32) -> InceptionV3:
    """Inception v3 for small images, of at least 7 x 7 pixels, without an auxiliary head.

    The stem is a 3x3 convolution with 192 channels and nothing is pooled before the blocks, as in the common PyTorch code
    (https://github.com/huyvnphan/PyTorch_CIFAR10).

    Args:
      num_classes: Number of classes.
      dropout: Probability of dropout before the last layer, in training.
      width: Factor of all channels.
      dtype: Type of the computation.

    Raises:
      InputError: A number is out of its range.
    """
    ranges.check_positive(width=width)
    ranges.check_rates(dropout=dropout)
    return InceptionV3(num_classes, True, False, dropout=float(dropout), width=float(width), dtype=dtype)

"""Inception v3: blocks of parallel and factorized convolutions, and an auxiliary head for training.

Szegedy et al., Rethinking the Inception Architecture for Computer Vision, https://arxiv.org/abs/1512.00567, as defined in
torchvision. Parameters have the names of torchvision.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.core import errors
from rfn_jax.models import branches, layers, ranges, zoo

# Each function below computes the branches of one kind of block; its signature is that of `branches.Branches`.


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


def _factorized(x: jax.Array, conv: Callable, *, inner: int) -> list[jax.Array]:
    row, column = (1, 7), (7, 1)
    return [
        conv(x, 'branch1x1', (192, 1)),
        conv(x, 'branch7x7', (inner, 1), (inner, row), (192, column)),
        conv(x, 'branch7x7dbl', (inner, 1), (inner, column), (inner, row), (inner, column), (192, row)),
        conv(_mean(x), 'branch_pool', (192, 1)),
    ]


def _factorized_reduction(x: jax.Array, conv: Callable) -> list[jax.Array]:
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
    'Mixed_6b': functools.partial(_factorized, inner=128),
    'Mixed_6c': functools.partial(_factorized, inner=160),
    'Mixed_6d': functools.partial(_factorized, inner=160),
    'Mixed_6e': functools.partial(_factorized, inner=192),
    'Mixed_7a': _factorized_reduction,
    'Mixed_7b': _split,
    'Mixed_7c': _split,
}


class AuxiliaryHead(nn.Module):
    """A classifier of features inside the network; in training, its float32 logits are recorded.

    Attributes:
      num_classes: Number of classes.
      convolutions: Makes and applies the convolutions; the second one is initialized with smaller kernels.
    """

    MIN_SIZE = 17

    num_classes: int
    convolutions: branches.Convolutions

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> None:
        """Sows the logits for features `[B, H, W, C]` in `'auxiliary_logits'` if `train`.

        Raises:
          InputError: The features have too few rows or columns.
        """
        if min(x.shape[1:3]) < self.MIN_SIZE:
            raise errors.InputError(
                f'{x.shape[1]} x {x.shape[2]} features are too few for the auxiliary head of Inception v3, which needs '
                f'{self.MIN_SIZE} rows and columns, as for an image of 299 x 299 pixels; train with auxiliary=False'
            )
        x = self.convolutions(layers.avg_pool(x, 5, strides=3), 'conv0', 128, 1, train=train)
        small = dataclasses.replace(self.convolutions, deviation=0.01)
        x = small(x, 'conv1', 768, 5, padding=0, train=train)
        logits = layers.logits(x, self.num_classes, kernel_init=nn.initializers.normal(0.001), name='fc')
        if train:
            self.sow('auxiliary_logits', 'logits', logits)


class InceptionV3(branches.InceptionNetwork):
    """Inception v3; `__call__` returns logits `[B, num_classes]` in float32."""

    blocks = BLOCKS
    deviation = 0.1

    def stem(self, x: jax.Array, conv: Callable[..., jax.Array]) -> jax.Array:
        """Applies one convolution, or five that reduce rows and columns to an eighth."""
        ranges.check_image(x, 7 if self.short_stem else 75, 'Inception v3')
        if self.short_stem:
            return conv(x, 'Conv2d_1a_3x3', 192, 3)
        x = conv(x, 'Conv2d_1a_3x3', 32, 3, 2, padding=0)
        x = conv(x, 'Conv2d_2a_3x3', 32, 3, padding=0)
        x = layers.max_pool(conv(x, 'Conv2d_2b_3x3', 64, 3), 3, strides=2)
        x = conv(x, 'Conv2d_3b_1x1', 80, 1)
        return layers.max_pool(conv(x, 'Conv2d_4a_3x3', 192, 3, padding=0), 3, strides=2)

    def apply_auxiliary_head(self, x: jax.Array, name: str, conv: branches.Convolutions, *, train: bool) -> None:
        """Applies the auxiliary head before the last reduction."""
        if name == 'Mixed_6e':
            # Images too small for training can still be evaluated, so initialization uses features of a sufficient size.
            size = AuxiliaryHead.MIN_SIZE
            features = x if train else jnp.zeros((1, size, size, x.shape[-1]), x.dtype)
            AuxiliaryHead(self.num_classes, conv, name='AuxLogits')(features, train=train)


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
    """Inception v3 for images of 299 x 299 pixels; for the arguments, see the attributes of `InceptionV3`.

    Images need at least 75 x 75 pixels, and 299 x 299 for training with the auxiliary head. The published weights of
    torchvision expect a normalization with mean and standard deviation 0.5 in every channel: they turn on torchvision's
    option `transform_input`, which converts the usual normalization to this one.

    Raises:
      InputError: A number is out of range.
    """
    numbers = ranges.check_loss_weights(auxiliary_weight=auxiliary_weight) | ranges.check_rates(dropout=dropout)
    numbers |= ranges.check_positive(width=width)
    return InceptionV3(num_classes, short_stem=False, auxiliary=auxiliary, **numbers, dtype=dtype)


@zoo.MODELS.register
def cifar_inception_v3(num_classes: int, *, dropout: float = 0.5, width: float = 1.0, dtype=jnp.float32) -> InceptionV3:
    """Inception v3 for small images, of at least 7 x 7 pixels, without an auxiliary head.

    The stem is a 3x3 convolution with 192 channels, and there is no pooling before the blocks, as in the common PyTorch code
    (https://github.com/huyvnphan/PyTorch_CIFAR10).

    Args:
      num_classes: Number of classes.
      dropout: Probability of dropout before the last layer, in training.
      width: Factor that scales all channels.
      dtype: Type of the computation.

    Raises:
      InputError: A number is out of range.
    """
    large = inception_v3(num_classes, auxiliary=False, dropout=dropout, width=width, dtype=dtype)
    return large.clone(short_stem=True)

"""GoogLeNet, with batch normalisation: blocks of parallel convolutions, and two auxiliary heads for training.

Szegedy et al., Going Deeper with Convolutions, https://arxiv.org/abs/1409.4842. This is the definition of torchvision, whose
third branch has a 3x3 convolution where the paper has a 5x5 one; its names are the names of the parameters.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.models import hooks, layers, ranges, zoo

# Channels of a block: of the 1x1 branch, of the two convolutions of each 3x3 branch, and of the branch with the maximum.
BLOCKS = {
    '3a': (64, 96, 128, 16, 32, 32),
    '3b': (128, 128, 192, 32, 96, 64),
    '4a': (192, 96, 208, 16, 48, 64),
    '4b': (160, 112, 224, 24, 64, 64),
    '4c': (128, 128, 256, 24, 64, 64),
    '4d': (112, 144, 288, 32, 64, 64),
    '4e': (256, 160, 320, 32, 128, 128),
    '5a': (256, 160, 320, 32, 128, 128),
    '5b': (384, 192, 384, 48, 128, 128),
}
POOLS = {'3b': 3, '4e': 2}  # the size of the maximum behind a block
HEADS = {'4a': 'aux1', '4d': 'aux2'}  # the auxiliary head behind a block

_kernel_init = nn.initializers.normal(0.01)
_dense = functools.partial(layers.dense, kernel_init=_kernel_init)
_conv_norm = functools.partial(
    layers.ConvNorm,
    activation=hooks.Relu,
    norm=functools.partial(layers.batch_norm, epsilon=1e-3),
    kernel_init=_kernel_init,
)

# Maxima that halve the image: torchvision's, whose last window need not be full, and that of the form for small images.
_ceil_max = functools.partial(layers.max_pool, strides=2, ceil_mode=True)
_padded_max = functools.partial(layers.max_pool, size=3, strides=2, padding=1)


class InceptionBlock(nn.Module):
    """Four branches side by side: 1x1; 1x1 and 3x3; 1x1 and 3x3 again; a 3x3 maximum and 1x1.

    Attributes:
      widths: Channels of the six convolutions.
      dtype: Type of the computation.
    """

    widths: Sequence[int]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[B, H, W, C]` to features of the same rows and columns; `train` chooses batch statistics."""

        def conv(x, features, kernel, name):
            return _conv_norm(features, kernel, dtype=self.dtype, name=name)(x, train=train)

        one, reduce2, three2, reduce3, three3, pooled = self.widths
        branches = [
            conv(x, one, 1, 'branch1'),
            conv(conv(x, reduce2, 1, 'branch2_0'), three2, 3, 'branch2_1'),
            conv(conv(x, reduce3, 1, 'branch3_0'), three3, 3, 'branch3_1'),
            conv(layers.max_pool(x, 3, strides=1, padding=1), pooled, 1, 'branch4_1'),
        ]
        return jnp.concatenate(branches, axis=-1)


class AuxiliaryHead(nn.Module):
    """A classifier of features inside the network; in training its float32 logits are recorded.

    Attributes:
      num_classes: Number of classes.
      width: Factor of all channels.
      dropout: Probability of dropout before the last layer, in training.
      dtype: Type of the computation.
    """

    num_classes: int
    width: float
    dropout: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> None:
        """Sows the logits of features `[B, H, W, C]` of any rows and columns in `'auxiliary_logits'` if `train`."""
        x = layers.adaptive_avg_pool(x, 4)
        x = _conv_norm(layers.scaled(128, self.width), 1, dtype=self.dtype, name='conv')(x, train=train)
        fc1 = _dense(layers.scaled(1024, self.width), dtype=self.dtype, name='fc1')
        x = hooks.Relu(name='relu')(fc1(layers.flatten(x)))
        x = nn.Dropout(self.dropout, deterministic=not train, name='dropout')(x).astype(jnp.float32)
        logits = _dense(self.num_classes, name='fc2')(x)
        if train:
            self.sow('auxiliary_logits', 'logits', logits)


class GoogLeNet(nn.Module):
    """GoogLeNet; `__call__` gives logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      short_stem: Whether the stem is one 3x3 convolution that keeps the image as large as it is, for small images; both
        maxima between blocks are then 3x3 ones with padding, as in the common PyTorch code for them.
      auxiliary: Whether there are auxiliary heads, whose logits training records in `'auxiliary_logits'`.
      auxiliary_weight: Weight of the cross-entropy of each of them in the loss of training.
      dropout: Probability of dropout before the last layer, in training.
      auxiliary_dropout: Probability of dropout before the last layer of auxiliary heads.
      width: Factor of all channels.
      dtype: Type of the computation; parameters, statistics and logits stay float32.
    """

    num_classes: int
    short_stem: bool = False
    auxiliary: bool = True
    auxiliary_weight: float = 0.3
    dropout: float = 0.2
    auxiliary_dropout: float = 0.7
    width: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalised images `[B, H, W, C]` to logits `[B, num_classes]`."""
        ranges.check_image(x, 1 if self.short_stem else 15, 'GoogLeNet')
        x = self._stem(x, train)
        for name, widths in BLOCKS.items():
            widths = tuple(layers.scaled(features, self.width) for features in widths)
            x = InceptionBlock(widths, self.dtype, name=f'inception{name}')(x, train=train)
            if self.auxiliary and name in HEADS and (train or self.is_initializing()):
                options = (self.num_classes, self.width, self.auxiliary_dropout, self.dtype)
                AuxiliaryHead(*options, name=HEADS[name])(x, train=train)
            if name in POOLS:
                x = _padded_max(x) if self.short_stem else _ceil_max(x, POOLS[name])
        x = layers.mean_over_positions(x).astype(jnp.float32)
        x = nn.Dropout(self.dropout, deterministic=not train, name='dropout')(x)
        return _dense(self.num_classes, name='fc')(x)

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        def conv(x, features, kernel, strides, name):
            features = layers.scaled(features, self.width)
            return _conv_norm(features, kernel, strides, dtype=self.dtype, name=name)(x, train=train)

        if self.short_stem:
            return conv(x, 192, 3, 1, 'conv1')
        x = _ceil_max(conv(x, 64, 7, 2, 'conv1'), 3)
        x = conv(x, 64, 1, 1, 'conv2')
        return _ceil_max(conv(x, 192, 3, 1, 'conv3'), 3)


@zoo.MODELS.register
def googlenet(
    num_classes: int,
    *,
    short_stem: bool = False,
    auxiliary: bool = True,
    auxiliary_weight: float = 0.3,
    dropout: float = 0.2,
    auxiliary_dropout: float = 0.7,
    width: float = 1.0,
    dtype=jnp.float32,
) -> GoogLeNet:
    """GoogLeNet; the attributes of `GoogLeNet` are the arguments.

    Images need at least 15 x 15 pixels, and those for the short stem at least one.

    The published weights of torchvision want images with mean and standard deviation 0.5 in every channel: its option
    `transform_input`, which they turn on, undoes the usual normalisation to this one.

    Raises:
      InputError: A number is out of its range.
    """
    ranges.check_positive(width=width)
    ranges.check_weights(auxiliary_weight=auxiliary_weight)
    ranges.check_rates(dropout=dropout, auxiliary_dropout=auxiliary_dropout)
    numbers = (float(auxiliary_weight), float(dropout), float(auxiliary_dropout), float(width))
    return GoogLeNet(num_classes, short_stem, auxiliary, *numbers, dtype)


# As in https://github.com/huyvnphan/PyTorch_CIFAR10: an image is made 4 times smaller, not 32.
zoo.MODELS.add('cifar_googlenet', functools.partial(googlenet, short_stem=True, auxiliary=False))

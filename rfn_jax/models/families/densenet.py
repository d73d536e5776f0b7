"""DenseNets: every layer gets the features of all layers before it in its block.

Huang et al., Densely Connected Convolutional Networks, https://arxiv.org/abs/1608.06993, in the form with bottlenecks and
compression (DenseNet-BC). Parameters are named as in torchvision (`conv0`, `denseblock1_denselayer1`, ..., `classifier`).
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.models import hooks, layers, ranges, zoo

conv_init = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')


def _norm_relu_conv(features: int, kernel: int, *, number: str, train: bool, dtype) -> Callable[[jax.Array], jax.Array]:
    """A normalization, a ReLU and a convolution, applied in this order; their names end in `number`."""
    norm = layers.batch_norm(use_running_average=not train, dtype=dtype, name=f'norm{number}')
    relu = hooks.Relu(name=f'relu{number}')
    conv = layers.conv(features, kernel, dtype=dtype, kernel_init=conv_init, name=f'conv{number}')
    return lambda x: conv(relu(norm(x)))


class DenseLayer(nn.Module):
    """A 1x1 and a 3x3 convolution, each after a normalization and an activation; their output is concatenated to x.

    Attributes:
      growth_rate: Number of channels that the layer adds.
      bottleneck: Channels between the two convolutions, in multiples of `growth_rate`.
      dropout: Probability of dropout in the added channels, in training.
      dtype: Type of the computation.
    """

    growth_rate: int
    bottleneck: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[B, H, W, C]` to `[B, H, W, C + growth_rate]`; `train` selects batch statistics."""
        reduce = _norm_relu_conv(self.bottleneck * self.growth_rate, 1, number='1', train=train, dtype=self.dtype)
        grow = _norm_relu_conv(self.growth_rate, 3, number='2', train=train, dtype=self.dtype)
        drop = nn.Dropout(self.dropout, deterministic=not train, name='dropout')
        return hooks.Concatenation(name='concatenation')(x, lambda x: drop(grow(reduce(x))))


class Transition(nn.Module):
    """The transition between two blocks: a 1x1 convolution to half the channels, and 2x2 average pooling.

    Attributes:
      dtype: Type of the computation.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[B, H, W, C]` to `[B, H // 2, W // 2, C // 2]`; `train` selects batch statistics."""
        return layers.avg_pool(_norm_relu_conv(x.shape[-1] // 2, 1, number='', train=train, dtype=self.dtype)(x), 2)


class DenseNet(nn.Module):
    """A DenseNet; `__call__` returns logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      block_sizes: Number of dense layers in each block; every block after the first halves the image.
      growth_rate: Channels that each dense layer adds.
      initial_features: Channels of the first convolution.
      bottleneck: Channels inside a dense layer, in multiples of `growth_rate`.
      stem_kernel: Rows and columns of the first convolution: 3 for small images, 7 for ImageNet.
      stem_strides: Stride of the first convolution.
      stem_pool: Whether 3x3 max pooling with stride 2 follows the first convolution, as for ImageNet.
      dropout: Probability of dropout at the end of each dense layer, in training.
      dtype: Type of the computation; parameters, statistics and logits stay float32.
    """

    num_classes: int
    block_sizes: Sequence[int]
    growth_rate: int = 32
    initial_features: int = 64
    bottleneck: int = 4
    stem_kernel: int = 7
    stem_strides: int = 2
    stem_pool: bool = True
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalized images `[B, H, W, C]` to logits `[B, num_classes]`."""
        ranges.check_image(x, self._min_size(), 'DenseNet')
        norm = functools.partial(layers.batch_norm, use_running_average=not train, dtype=self.dtype)
        stem = {'strides': self.stem_strides, 'dtype': self.dtype, 'kernel_init': conv_init}
        x = layers.conv(self.initial_features, self.stem_kernel, **stem, name='conv0')(x)
        x = hooks.Relu(name='relu0')(norm(name='norm0')(x))
        if self.stem_pool:
            x = layers.max_pool(x, 3, strides=2, padding=1)
        for block, size in enumerate(self.block_sizes, start=1):
            if block > 1:
                x = Transition(self.dtype, name=f'transition{block - 1}')(x, train=train)
            for index in range(1, size + 1):
                name = f'denseblock{block}_denselayer{index}'
                layer = DenseLayer(self.growth_rate, self.bottleneck, self.dropout, self.dtype, name=name)
                x = layer(x, train=train)
        x = hooks.Relu(name='relu5')(norm(name='norm5')(x))
        return layers.logits(x, self.num_classes, name='classifier')

    def _min_size(self) -> int:
        """Rows of the smallest image that still has a pixel at the last block."""
        rows = 2 ** (len(self.block_sizes) - 1)
        if self.stem_pool:
            rows = 2 * rows - 1
        return self.stem_strides * (rows - 1) + 1


@zoo.MODELS.register
def densenet(
    num_classes: int,
    *,
    block_sizes: Sequence[int] = (6, 12, 24, 16),
    growth_rate: int = 32,
    initial_features: int = 64,
    bottleneck: int = 4,
    stem_kernel: int = 7,
    stem_strides: int = 2,
    stem_pool: bool = True,
    dropout: float = 0.0,
    dtype=jnp.float32,
) -> DenseNet:
    """A DenseNet of any depth and width; for the arguments, see the attributes of `DenseNet`.

    Raises:
      InputError: A number is out of range.
    """
    return DenseNet(
        num_classes,
        **ranges.check_stages(block_sizes=block_sizes),
        **ranges.check_sizes(growth_rate=growth_rate, initial_features=initial_features, bottleneck=bottleneck),
        **ranges.check_odd(stem_kernel=stem_kernel),
        **ranges.check_sizes(stem_strides=stem_strides),
        **ranges.check_rates(dropout=dropout),
        stem_pool=stem_pool,
        dtype=dtype,
    )


# The networks of https://github.com/huyvnphan/PyTorch_CIFAR10 keep the max pooling of the stem; import their files with
# stem_pool=True.
_CIFAR = {'stem_kernel': 3, 'stem_strides': 1, 'stem_pool': False}

for _depth, _options in {
    121: {'block_sizes': (6, 12, 24, 16)},
    161: {'block_sizes': (6, 12, 36, 24), 'growth_rate': 48, 'initial_features': 96},
    169: {'block_sizes': (6, 12, 32, 32)},
    201: {'block_sizes': (6, 12, 48, 32)},
}.items():
    _form = functools.partial(densenet, **_options)
    zoo.MODELS.add(f'densenet{_depth}', _form)
    zoo.MODELS.add(f'cifar_densenet{_depth}', functools.partial(_form, **_CIFAR))

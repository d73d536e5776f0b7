"""MobileNetV1 of any width.

Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications,
https://arxiv.org/abs/1704.04861. The blocks are the layers `features_1`, `features_2`, ..., after the first convolution,
`features_0`. They have no residual sums.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.core import checks
from rfn_jax.models import hooks, inverted_residual, layers, ranges, zoo

STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
ACTIVATIONS = {'relu': hooks.Relu, 'relu6': hooks.Relu6}


class SeparableConvolution(nn.Module):
    """A depthwise 3x3 convolution and a 1x1 one, each followed by batch normalization and an activation.

    Attributes:
      features: Output channels.
      strides: Stride of the depthwise convolution.
      activation: Class of the activations.
      dtype: Type of the computation.
    """

    features: int
    strides: int
    activation: type[hooks.Activation]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[B, H, W, C]` to features; `train` selects batch statistics instead of running ones."""
        conv_norm = functools.partial(layers.ConvNorm, activation=self.activation, dtype=self.dtype)
        channels = x.shape[-1]
        x = conv_norm(channels, 3, self.strides, groups=channels, name='depthwise')(x, train=train)
        return conv_norm(self.features, 1, name='pointwise')(x, train=train)


class MobileNetV1(nn.Module):
    """Separable convolutions after an ordinary one; logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      stem_width: Channels of the first convolution.
      stages: For each stage, the channels, the number of blocks, and the stride of the first block.
      stem_strides: Stride of the first convolution.
      activation: `'relu'`, as in the paper, or `'relu6'`, as in TensorFlow and timm.
      dropout: Probability of dropout before the dense layer, in training.
      dtype: Type of the computation; parameters, statistics and logits stay float32.
    """

    num_classes: int
    stem_width: int = 32
    stages: Sequence[Sequence[int]] = STAGES
    stem_strides: int = 2
    activation: str = 'relu'
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalized images `[B, H, W, C]` to logits `[B, num_classes]`."""
        options = {'activation': ACTIVATIONS[self.activation], 'dtype': self.dtype}
        x = layers.ConvNorm(self.stem_width, 3, self.stem_strides, **options, name='features_0')(x, train=train)
        blocks = [(width, 1 if i else strides) for width, count, strides in self.stages for i in range(count)]
        for number, (width, strides) in enumerate(blocks, start=1):
            x = SeparableConvolution(width, strides, **options, name=f'features_{number}')(x, train=train)
        return layers.logits(x, self.num_classes, dropout=self.dropout, train=train, name='classifier')


@zoo.MODELS.register
def mobilenet_v1(
    num_classes: int,
    *,
    stages: Sequence[Sequence[int]] = STAGES,
    width_multiplier: float = 1.0,
    stem_strides: int = 2,
    activation: str = 'relu',
    dropout: float = 0.0,
    dtype=jnp.float32,
) -> MobileNetV1:
    """MobileNetV1; an image needs at least one pixel. For arguments not listed here, see the attributes of `MobileNetV1`.

    Args:
      width_multiplier: Scales the channels of all stages and of the first convolution, which are then rounded to multiples
        of 8.
      stages: Rows of `MobileNetV1.stages` before scaling.

    Raises:
      InputError: A number is out of range, or the activation is unknown.
    """
    options = ranges.check_sizes(stem_strides=stem_strides) | ranges.check_rates(dropout=dropout)
    checks.one_of('activation', activation, ACTIVATIONS)
    ranges.check_positive(width_multiplier=width_multiplier)
    stages = ranges.check_table('stages', stages, ('channels', 'blocks', 'stride'))
    scaled = tuple((inverted_residual.round_channels(c * width_multiplier), n, s) for c, n, s in stages)
    stem_width = inverted_residual.round_channels(32 * width_multiplier)
    return MobileNetV1(num_classes, stem_width, scaled, **options, activation=activation, dtype=dtype)


# As in https://github.com/kuangliu/pytorch-cifar, an image shrinks by 16, not by 32.
zoo.MODELS.add('cifar_mobilenet_v1', functools.partial(mobilenet_v1, stem_strides=1))

"""MobileNetV2, of any width.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, https://arxiv.org/abs/1801.04381. The blocks are the
layers `features_1`, `features_2`, ..., between the first and the last convolution.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.models import hooks, inverted_residual, layers, ranges, zoo

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV2(nn.Module):
    """Inverted residual blocks with ReLU6; `__call__` gives logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      stages: Expansion, channels, number of blocks, and stride of the first block of each stage.
      stem_width: Channels of the first convolution.
      head_width: Channels of the last convolution.
      stem_strides: Stride of the first convolution.
      dropout: Probability of dropout before the dense layer, in training.
      dtype: Type of the computation; parameters, statistics and logits stay float32.
    """

    num_classes: int
    stages: Sequence[Sequence[int]]
    stem_width: int
    head_width: int
    stem_strides: int = 2
    dropout: float = 0.2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalised images `[B, H, W, C]` to logits `[B, num_classes]`."""
        options = {'activation': hooks.Relu6, 'dtype': self.dtype}
        conv_norm = functools.partial(layers.ConvNorm, **options)
        block = functools.partial(inverted_residual.InvertedResidual, **options)
        number = 0
        x = conv_norm(self.stem_width, 3, self.stem_strides, name=f'features_{number}')(x, train=train)
        for expansion, width, blocks, strides in self.stages:
            for index in range(blocks):
                number += 1
                sizes = (expansion * x.shape[-1], width, 3, 1 if index else strides)
                x = block(*sizes, name=f'features_{number}')(x, train=train)
        x = conv_norm(self.head_width, 1, name=f'features_{number + 1}')(x, train=train)
        init = nn.initializers.normal(0.01)
        return layers.logits(
            x, self.num_classes, dropout=self.dropout, train=train, kernel_init=init, name='classifier'
        )


@zoo.MODELS.register
def mobilenet_v2(
    num_classes: int,
    *,
    width_multiplier: float = 1.0,
    stages: Sequence[Sequence[int]] = STAGES,
    stem_strides: int = 2,
    dropout: float = 0.2,
    dtype=jnp.float32,
) -> MobileNetV2:
    """MobileNetV2; at least one pixel is needed.

    Args:
      num_classes: Number of classes.
      width_multiplier: Scales the channels of all stages and of the first convolution; those of the last one only if it is
        above 1.
      stages: Expansion, channels before scaling, number of blocks, and stride of the first block of each stage.
      stem_strides: Stride of the first convolution.
      dropout: Probability of dropout before the dense layer, in training.
      dtype: Type of the computation.

    Raises:
      InputError: A number is out of its range.
    """
    options = ranges.check_sizes(stem_strides=stem_strides) | ranges.check_rates(dropout=dropout)
    ranges.check_positive(width_multiplier=width_multiplier)
    stages = ranges.check_table('stages', stages, ('expansion', 'channels', 'blocks', 'stride'))
    scaled = tuple((t, inverted_residual.round_channels(c * width_multiplier), n, s) for t, c, n, s in stages)
    stem_width = inverted_residual.round_channels(32 * width_multiplier)
    head_width = inverted_residual.round_channels(1280 * max(1.0, width_multiplier))
    return MobileNetV2(num_classes, scaled, stem_width, head_width, **options, dtype=dtype)


# As in https://github.com/kuangliu/pytorch-cifar, the first two strides of 2 are 1: an image is made 8 times smaller, not 32.
zoo.MODELS.add(
    'cifar_mobilenet_v2',
    functools.partial(mobilenet_v2, stages=(STAGES[0], (6, 24, 2, 1), *STAGES[2:]), stem_strides=1),
)

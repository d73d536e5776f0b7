"""EfficientNet, of any width and depth.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, https://arxiv.org/abs/1905.11946. The
blocks are the layers `features_1_0`, `features_2_0`, `features_2_1`, ..., by stage and place in it, between the first and the
last convolution.
"""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.models import hooks, inverted_residual, layers, ranges, zoo

STAGES = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)


class EfficientNet(nn.Module):
    """Inverted residual blocks with SiLU and squeeze-and-excitation; logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      stages: Expansion, kernel, channels, number of blocks, and stride of the first block of each stage.
      stem_width: Channels of the first convolution.
      stem_strides: Stride of the first convolution.
      dropout: Probability of dropout before the dense layer, in training.
      stochastic_depth: Probability of leaving out a residual branch, in training; it grows linearly from 0 at the first block
        and would reach this after the last.
      dtype: Type of the computation; parameters, statistics and logits stay float32.
    """

    num_classes: int
    stages: Sequence[Sequence[int]]
    stem_width: int
    stem_strides: int = 2
    dropout: float = 0.2
    stochastic_depth: float = 0.2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalised images `[B, H, W, C]` to logits `[B, num_classes]`."""
        conv_norm = functools.partial(layers.ConvNorm, activation=hooks.Silu, dtype=self.dtype)
        x = conv_norm(self.stem_width, 3, self.stem_strides, name='features_0')(x, train=train)
        total, before = sum(blocks for _, _, _, blocks, _ in self.stages), 0
        for stage, (expansion, kernel, width, blocks, strides) in enumerate(self.stages, start=1):
            for index in range(blocks):
                x = inverted_residual.InvertedResidual(
                    inverted_residual.round_channels(expansion * x.shape[-1]),
                    width,
                    kernel,
                    1 if index else strides,
                    hooks.Silu,
                    squeeze=x.shape[-1] // 4,
                    squeeze_activation=nn.silu,
                    stochastic_depth=self.stochastic_depth * before / total,
                    dtype=self.dtype,
                    name=f'features_{stage}_{index}',
                )(x, train=train)
                before += 1
        x = conv_norm(4 * x.shape[-1], 1, name=f'features_{len(self.stages) + 1}')(x, train=train)
        init = nn.initializers.variance_scaling(1 / 3, 'fan_out', 'uniform')
        return layers.logits(
            x, self.num_classes, dropout=self.dropout, train=train, kernel_init=init, name='classifier'
        )


@zoo.MODELS.register
def efficientnet(
    num_classes: int,
    *,
    width_multiplier: float = 1.0,
    depth_multiplier: float = 1.0,
    stages: Sequence[Sequence[int]] = STAGES,
    stem_strides: int = 2,
    dropout: float = 0.2,
    stochastic_depth: float = 0.2,
    dtype=jnp.float32,
) -> EfficientNet:
    """An EfficientNet; at least one pixel is needed.

    Args:
      num_classes: Number of classes.
      width_multiplier: Scales the channels of all stages and of the first convolution.
      depth_multiplier: Scales the numbers of blocks.
      stages: Expansion, kernel, channels, number of blocks, and stride of the first block of each stage, before scaling.
      stem_strides: Stride of the first convolution.
      dropout: Probability of dropout before the dense layer, in training.
      stochastic_depth: Probability of leaving out a residual branch that those of the blocks grow towards, in training.
      dtype: Type of the computation.

    Raises:
      InputError: A number is out of its range.
    """
    options = {
        **ranges.check_sizes(stem_strides=stem_strides),
        **ranges.check_rates(dropout=dropout, stochastic_depth=stochastic_depth),
    }
    ranges.check_positive(width_multiplier=width_multiplier, depth_multiplier=depth_multiplier)
    stages = ranges.check_table('stages', stages, ('expansion', 'kernel', 'channels', 'blocks', 'stride'))
    scaled = tuple(
        (t, k, inverted_residual.round_channels(c * width_multiplier), math.ceil(n * depth_multiplier), s)
        for t, k, c, n, s in stages
    )
    stem_width = inverted_residual.round_channels(32 * width_multiplier)
    return EfficientNet(num_classes, scaled, stem_width, **options, dtype=dtype)


zoo.MODELS.add('efficientnet_b0', functools.partial(efficientnet, width_multiplier=1.0, depth_multiplier=1.0))

# As in `cifar_mobilenet_v2`, the first two strides of 2 are 1: an image is made 8 times smaller, not 32.
zoo.MODELS.add(
    'cifar_efficientnet_b0',
    functools.partial(efficientnet, stages=(STAGES[0], (6, 3, 24, 2, 1), *STAGES[2:]), stem_strides=1),
)

"""EfficientNet of any width and depth.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, https://arxiv.org/abs/1905.11946. The
blocks are the layers `features_1_0`, `features_2_0`, `features_2_1`, ..., named by stage and position in the stage, between
the first and the last convolution.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, Self

import flax.linen as nn
import jax.numpy as jnp

from rfn_jax.models import hooks, inverted_residual, ranges, zoo

STAGES = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)


class EfficientNet(inverted_residual.InvertedResidualNetwork):
    """Inverted residual blocks with SiLU and squeeze-and-excitation; logits `[B, num_classes]` in float32.

    Attributes:
      stages: For each stage, the expansion, the kernel, the channels, the number of blocks, and the stride of the first
        block.
      stochastic_depth: Probability of dropping a residual branch, in training. It grows linearly from 0 at the first block
        and would reach this value one block after the last.
    """

    stages: Sequence[Sequence[int]] = STAGES
    stochastic_depth: float = 0.2

    activation = hooks.Silu
    scales_ends = True  # whether `scaled` scales the first and the last convolution, and the depths of the outer stages
    classifier_init = staticmethod(nn.initializers.variance_scaling(1 / 3, 'fan_out', 'uniform'))

    def block_options(self) -> dict[str, dict[str, Any]]:
        """The attributes of the blocks, which are numbered by stage and position in the stage."""
        options, previous, total = {}, self.stem_width, sum(blocks for _, _, _, blocks, _ in self.stages)
        for stage, (expansion, kernel, width, blocks, strides) in enumerate(self.stages, start=1):
            for index in range(blocks):
                options[f'features_{stage}_{index}'] = {
                    'expanded': inverted_residual.round_channels(expansion * previous),
                    'features': width,
                    'kernel': kernel,
                    'strides': 1 if index else strides,
                    'squeeze': previous // 4,
                    'squeeze_activation': nn.silu,
                    'stochastic_depth': self.stochastic_depth * len(options) / total,
                }
                previous = width
        return options

    @classmethod
    def scaled(
        cls,
        num_classes: int,
        *,
        width_multiplier: float = 1.0,
        depth_multiplier: float = 1.0,
        stages: Sequence[Sequence[int]] = STAGES,
        stem_strides: int = 2,
        dropout: float = 0.2,
        stochastic_depth: float = 0.2,
        dtype=jnp.float32,
    ) -> Self:
        """A network of any width and depth; an image needs at least one pixel. For other arguments, see the class.

        Args:
          width_multiplier: Scales the channels of all stages and of the first convolution (which an EfficientNet-Lite leaves
            as it is); they are then rounded to multiples of 8.
          depth_multiplier: Scales the numbers of blocks (but those of the first and the last stage of an EfficientNet-Lite),
            which are then rounded up.
          stages: Rows of `EfficientNet.stages` before scaling.

        Raises:
          InputError: A number is out of range.
        """
        options = ranges.check_sizes(stem_strides=stem_strides)
        options |= ranges.check_rates(dropout=dropout, stochastic_depth=stochastic_depth)
        ranges.check_positive(width_multiplier=width_multiplier, depth_multiplier=depth_multiplier)
        rows = ranges.check_table('stages', stages, ('expansion', 'kernel', 'channels', 'blocks', 'stride'))
        scaled = []
        for index, (expansion, kernel, channels, blocks, strides) in enumerate(rows):
            if cls.scales_ends or 0 < index < len(rows) - 1:
                blocks = math.ceil(blocks * depth_multiplier)
            channels = inverted_residual.round_channels(channels * width_multiplier)
            scaled.append((expansion, kernel, channels, blocks, strides))
        stem_width = inverted_residual.round_channels(32 * width_multiplier) if cls.scales_ends else 32
        head_width = 4 * scaled[-1][2] if cls.scales_ends else 1280
        return cls(num_classes, stem_width, head_width, stages=tuple(scaled), **options, dtype=dtype)


efficientnet = EfficientNet.scaled
zoo.MODELS.add('efficientnet', efficientnet)
zoo.MODELS.add('efficientnet_b0', functools.partial(efficientnet, width_multiplier=1.0, depth_multiplier=1.0))

# As in `cifar_mobilenet_v2`, the first two strides of 2 become 1, so an image shrinks by 8, not by 32.
zoo.MODELS.add(
    'cifar_efficientnet_b0',
    functools.partial(efficientnet, stages=(STAGES[0], (6, 3, 24, 2, 1), *STAGES[2:]), stem_strides=1),
)

"""EfficientNet of any width and depth.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, https://arxiv.org/abs/1905.11946. The
blocks are the layers `features_1_0`, `features_2_0`, `features_2_1`, ..., named by stage and position in the stage, between
the first and the last convolution.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

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


def scaled_stages(
    stages: Sequence[Sequence[int]], width_multiplier: float, depth_multiplier: float, *, all_depths: bool = True
) -> tuple[tuple[int, ...], ...]:
    """Checks the rows of `EfficientNet.stages` and scales their channels and numbers of blocks.

    Args:
      stages: The rows before scaling.
      width_multiplier: Scales the channels, which are then rounded to multiples of 8.
      depth_multiplier: Scales the numbers of blocks, which are then rounded up.
      all_depths: Whether to scale the numbers of blocks of the first and the last stage as well.

    Raises:
      InputError: A number is out of range.
    """
    ranges.check_positive(width_multiplier=width_multiplier, depth_multiplier=depth_multiplier)
    stages = ranges.check_table('stages', stages, ('expansion', 'kernel', 'channels', 'blocks', 'stride'))
    scaled = []
    for index, (expansion, kernel, channels, blocks, strides) in enumerate(stages):
        if all_depths or 0 < index < len(stages) - 1:
            blocks = math.ceil(blocks * depth_multiplier)
        channels = inverted_residual.round_channels(channels * width_multiplier)
        scaled.append((expansion, kernel, channels, blocks, strides))
    return tuple(scaled)


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
    """An EfficientNet; an image needs at least one pixel. For other arguments, see the attributes of `EfficientNet`.

    Args:
      width_multiplier: Scales the channels of all stages and of the first convolution, which are then rounded to multiples
        of 8.
      depth_multiplier: Scales the numbers of blocks, which are then rounded up.
      stages: Rows of `EfficientNet.stages` before scaling.

    Raises:
      InputError: A number is out of range.
    """
    options = ranges.check_sizes(stem_strides=stem_strides)
    options |= ranges.check_rates(dropout=dropout, stochastic_depth=stochastic_depth)
    scaled = scaled_stages(stages, width_multiplier, depth_multiplier)
    stem_width = inverted_residual.round_channels(32 * width_multiplier)
    return EfficientNet(num_classes, stem_width, 4 * scaled[-1][2], stages=scaled, **options, dtype=dtype)


zoo.MODELS.add('efficientnet_b0', functools.partial(efficientnet, width_multiplier=1.0, depth_multiplier=1.0))

# As in `cifar_mobilenet_v2`, the first two strides of 2 become 1, so an image shrinks by 8, not by 32.
zoo.MODELS.add(
    'cifar_efficientnet_b0',
    functools.partial(efficientnet, stages=(STAGES[0], (6, 3, 24, 2, 1), *STAGES[2:]), stem_strides=1),
)

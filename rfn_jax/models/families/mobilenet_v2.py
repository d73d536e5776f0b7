"""MobileNetV2 of any width.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, https://arxiv.org/abs/1801.04381. The blocks are the
layers `features_1`, `features_2`, ..., between the first and the last convolution.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from rfn_jax.models import hooks, inverted_residual, ranges, zoo

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV2(inverted_residual.InvertedResidualNetwork):
    """Inverted residual blocks with ReLU6; logits `[B, num_classes]` in float32.

    Attributes:
      stages: For each stage, the expansion, the channels, the number of blocks, and the stride of the first block.
    """

    stages: Sequence[Sequence[int]] = STAGES

    activation = hooks.Relu6

    def block_options(self) -> dict[str, dict[str, Any]]:
        """The attributes of the blocks, which are numbered consecutively over all stages."""
        options, previous = {}, self.stem_width
        for expansion, width, blocks, strides in self.stages:
            for index in range(blocks):
                sizes = {'expanded': expansion * previous, 'features': width, 'strides': 1 if index else strides}
                options[f'features_{len(options) + 1}'] = {**sizes, 'kernel': 3}
                previous = width
        return options


@zoo.MODELS.register
def mobilenet_v2(
    num_classes: int,
    *,
    stages: Sequence[Sequence[int]] = STAGES,
    width_multiplier: float = 1.0,
    stem_strides: int = 2,
    dropout: float = 0.2,
    dtype=jnp.float32,
) -> MobileNetV2:
    """MobileNetV2; an image needs at least one pixel. For arguments not listed here, see the attributes of `MobileNetV2`.

    Args:
      width_multiplier: Scales the channels of all stages and of the first convolution; if above 1, also those of the last
        convolution.
      stages: Rows of `MobileNetV2.stages` before scaling.

    Raises:
      InputError: A number is out of range.
    """
    options = ranges.check_sizes(stem_strides=stem_strides) | ranges.check_rates(dropout=dropout)
    ranges.check_positive(width_multiplier=width_multiplier)
    stages = ranges.check_table('stages', stages, ('expansion', 'channels', 'blocks', 'stride'))
    scaled = tuple((t, inverted_residual.round_channels(c * width_multiplier), n, s) for t, c, n, s in stages)
    stem_width = inverted_residual.round_channels(32 * width_multiplier)
    head_width = inverted_residual.round_channels(1280 * max(1.0, width_multiplier))
    return MobileNetV2(num_classes, stem_width, head_width, stages=scaled, **options, dtype=dtype)


# As in https://github.com/kuangliu/pytorch-cifar, the first two strides of 2 become 1, so an image shrinks by 8, not by 32.
zoo.MODELS.add(
    'cifar_mobilenet_v2',
    functools.partial(mobilenet_v2, stages=(STAGES[0], (6, 24, 2, 1), *STAGES[2:]), stem_strides=1),
)

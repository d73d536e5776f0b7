"""EfficientNet-Lite of any width and depth: an EfficientNet for devices that round to integers.

https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. It differs from EfficientNet (Tan and Le,
https://arxiv.org/abs/1905.11946) in four points: there is no squeeze-and-excitation, all activations are ReLU6, scaling
leaves the first and the last convolution and the depths of the first and the last stage as they are, and convolutions are
padded as in TensorFlow (`layers.same_padding`). The layers have the names that they have in `efficientnet`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from rfn_jax.models import hooks, layers, ranges, zoo
from rfn_jax.models.families import efficientnet

STAGES = efficientnet.STAGES
STEM_WIDTH = 32
HEAD_WIDTH = 1280


class EfficientNetLite(efficientnet.EfficientNet):
    """Inverted residual blocks with ReLU6 and TensorFlow's padding; logits `[B, num_classes]` in float32.

    The published weights were trained on images in [0, 255] with mean 127 and standard deviation 128.
    """

    activation = hooks.Relu6
    norm = staticmethod(functools.partial(layers.batch_norm, momentum=0.99, epsilon=1e-3))
    padding = 'same'

    def block_options(self) -> dict[str, dict[str, Any]]:
        """The attributes of the blocks of an EfficientNet, without squeeze-and-excitation."""
        return {name: options | {'squeeze': 0} for name, options in super().block_options().items()}


@zoo.MODELS.register
def efficientnet_lite(
    num_classes: int,
    *,
    width_multiplier: float = 1.0,
    depth_multiplier: float = 1.0,
    stages: Sequence[Sequence[int]] = STAGES,
    stem_strides: int = 2,
    dropout: float = 0.2,
    stochastic_depth: float = 0.2,
    dtype=jnp.float32,
) -> EfficientNetLite:
    """An EfficientNet-Lite; an image needs at least one pixel. For other arguments, see the attributes of `EfficientNet`.

    Args:
      width_multiplier: Scales the channels of all stages, which are then rounded to multiples of 8.
      depth_multiplier: Scales the numbers of blocks of all stages but the first and the last, which are then rounded up.
      stages: Rows of `EfficientNet.stages` before scaling.

    Raises:
      InputError: A number is out of range.
    """
    options = ranges.check_sizes(stem_strides=stem_strides)
    options |= ranges.check_rates(dropout=dropout, stochastic_depth=stochastic_depth)
    scaled = efficientnet.scaled_stages(stages, width_multiplier, depth_multiplier, all_depths=False)
    return EfficientNetLite(num_classes, STEM_WIDTH, HEAD_WIDTH, stages=scaled, **options, dtype=dtype)


for _number, (_width, _depth, _dropout) in enumerate(
    ((1.0, 1.0, 0.2), (1.0, 1.1, 0.2), (1.1, 1.2, 0.3), (1.2, 1.4, 0.3), (1.4, 1.8, 0.3))
):
    zoo.MODELS.add(
        f'efficientnet_lite{_number}',
        functools.partial(efficientnet_lite, width_multiplier=_width, depth_multiplier=_depth, dropout=_dropout),
    )

# As in `cifar_efficientnet_b0`, the first two strides of 2 become 1, so an image shrinks by 8, not by 32.
zoo.MODELS.add(
    'cifar_efficientnet_lite0',
    functools.partial(efficientnet_lite, stages=(STAGES[0], (6, 3, 24, 2, 1), *STAGES[2:]), stem_strides=1),
)

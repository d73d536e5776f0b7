"""EfficientNet-Lite of any width and depth: an EfficientNet for devices that round to integers.

https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. It differs from EfficientNet (Tan and Le,
https://arxiv.org/abs/1905.11946) in four points: there is no squeeze-and-excitation, all activations are ReLU6, scaling
leaves the first and the last convolution and the depths of the first and the last stage as they are, and convolutions are
padded as in TensorFlow (`layers.same_padding`). The layers have the names that they have in `efficientnet`.
"""

import functools
from typing import Any

from rfn_jax.models import hooks, layers, zoo
from rfn_jax.models.families import efficientnet

STAGES = efficientnet.STAGES


class EfficientNetLite(efficientnet.EfficientNet):
    """Inverted residual blocks with ReLU6 and TensorFlow's padding; logits `[B, num_classes]` in float32.

    The published weights were trained on images in [0, 255] with mean 127 and standard deviation 128.
    """

    activation = hooks.Relu6
    scales_ends = False
    norm = staticmethod(functools.partial(layers.batch_norm, momentum=0.99, epsilon=1e-3))
    padding = 'same'

    def block_options(self) -> dict[str, dict[str, Any]]:
        """The attributes of the blocks of an EfficientNet, without squeeze-and-excitation."""
        return {name: options | {'squeeze': 0} for name, options in super().block_options().items()}


efficientnet_lite = EfficientNetLite.scaled
zoo.MODELS.add('efficientnet_lite', efficientnet_lite)

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

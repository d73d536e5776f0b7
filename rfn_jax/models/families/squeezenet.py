"""SqueezeNets of any depth and width.

Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, https://arxiv.org/abs/1602.07360, without the
bypass connections, and SqueezeNet 1.1, https://github.com/forresti/SqueezeNet/tree/master/SqueezeNet_v1.1. The layers have
the names and the positions that they have in torchvision, where activations and pooling count (`features_0`, `features_3`,
...). There is no batch normalization. The logits are never negative, since the last convolution is followed by a ReLU.
"""

import functools
import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.core import errors
from rfn_jax.models import hooks, layers, ranges, zoo

conv_init = nn.initializers.variance_scaling(2.0, 'fan_in', 'uniform')

STAGES_1_0 = (
    ((16, 64), (16, 64), (32, 128)),
    ((32, 128), (48, 192), (48, 192), (64, 256)),
    ((64, 256),),
)
STAGES_1_1 = (
    ((16, 64), (16, 64)),
    ((32, 128), (32, 128)),
    ((48, 192), (48, 192), (64, 256), (64, 256)),
)


class Fire(nn.Module):
    """A 1x1 convolution to fewer channels, then a 1x1 and a 3x3 one side by side; a ReLU follows each of them.

    Attributes:
      squeeze: Channels of the first convolution.
      expand: Channels of each of the other two, whose outputs are concatenated.
      dtype: Type of the computation.
    """

    squeeze: int
    expand: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps features `[B, H, W, C]` to `[B, H, W, 2 * expand]`."""

        def conv(x, features, kernel, name):
            options = {'use_bias': True, 'kernel_init': conv_init, 'dtype': self.dtype}
            return hooks.Relu(name=f'{name}_activation')(layers.conv(features, kernel, **options, name=name)(x))

        x = conv(x, self.squeeze, 1, 'squeeze')
        return jnp.concatenate([conv(x, self.expand, 1, 'expand1x1'), conv(x, self.expand, 3, 'expand3x3')], axis=-1)


class SqueezeNet(nn.Module):
    """Fire modules, with max pooling before each stage of them; logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      stages: For each stage, the channels of its fire modules: those of the first convolution of the module, and those of
        each of the other two.
      stem_width: Channels of the first convolution.
      stem_kernel: Rows and columns of the first convolution, which has no padding.
      stem_strides: Stride of the first convolution.
      dropout: Probability of dropout before the last convolution, in training.
      dtype: Type of the computation; parameters and logits stay float32.
    """

    num_classes: int
    stages: Sequence[Sequence[Sequence[int]]]
    stem_width: int
    stem_kernel: int
    stem_strides: int = 2
    dropout: float = 0.5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalized images `[B, H, W, C]` to logits `[B, num_classes]`."""
        ranges.check_image(x, self._min_size(), 'SqueezeNet')
        options = {'use_bias': True, 'kernel_init': conv_init, 'dtype': self.dtype}
        stem = {'strides': self.stem_strides, 'padding': 0, **options}
        x = layers.conv(self.stem_width, self.stem_kernel, **stem, name='features_0')(x)
        x = hooks.Relu(name='features_1')(x)
        position = itertools.count(2)
        for stage in self.stages:
            next(position)  # of the pooling
            x = layers.max_pool(x, 3, strides=2, ceil_mode=True)
            for squeeze, expand in stage:
                x = Fire(squeeze, expand, self.dtype, name=f'features_{next(position)}')(x)
        x = nn.Dropout(self.dropout, deterministic=not train, name='classifier_0')(x.astype(jnp.float32))
        last = {'use_bias': True, 'kernel_init': nn.initializers.normal(0.01)}
        x = hooks.Relu(name='classifier_2')(layers.conv(self.num_classes, 1, **last, name='classifier_1')(x))
        return layers.mean_over_positions(x)

    def _min_size(self) -> int:
        """Rows of the smallest image of which each pooling leaves at least one row."""
        return self.stem_strides * (2 ** len(self.stages) - 1) + self.stem_kernel


@zoo.MODELS.register
def squeezenet(
    num_classes: int,
    *,
    stages: Sequence[Sequence[Sequence[int]]] = STAGES_1_1,
    stem_width: int = 64,
    stem_kernel: int = 3,
    stem_strides: int = 2,
    dropout: float = 0.5,
    dtype=jnp.float32,
) -> SqueezeNet:
    """A SqueezeNet, by default version 1.1 for any number of classes; for the arguments, see the attributes of `SqueezeNet`.

    Raises:
      InputError: There are no stages, a stage has no modules, or a number is out of range.
    """
    if not stages:
        raise errors.InputError(f'stages of a SqueezeNet must have at least one stage, got {stages!r}')
    table = tuple(
        ranges.check_table(f'stages[{index}]', stage, ('squeeze', 'expand')) for index, stage in enumerate(stages)
    )
    sizes = ranges.check_sizes(stem_width=stem_width, stem_kernel=stem_kernel, stem_strides=stem_strides)
    return SqueezeNet(num_classes, table, **sizes, **ranges.check_rates(dropout=dropout), dtype=dtype)


zoo.MODELS.add('squeezenet1_0', functools.partial(squeezenet, stages=STAGES_1_0, stem_width=96, stem_kernel=7))
zoo.MODELS.add('squeezenet1_1', functools.partial(squeezenet, stages=STAGES_1_1))

# The last stage sees 3 x 3 positions of an image of 32 x 32 pixels; with a stride of 2 in the stem it would see one.
zoo.MODELS.add('cifar_squeezenet1_1', functools.partial(squeezenet, stages=STAGES_1_1, stem_strides=1))

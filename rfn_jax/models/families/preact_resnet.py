"""Pre-activation residual networks, with the normalization and the activation before each convolution, and wide ones.

He et al., Identity Mappings in Deep Residual Networks, https://arxiv.org/abs/1603.05027; Zagoruyko and Komodakis, Wide
Residual Networks, https://arxiv.org/abs/1605.07146. The stem is a 3x3 convolution, for small images.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.models import hooks, layers, ranges, residual, zoo


class PreActBlock(nn.Module):
    """Two 3x3 convolutions (`basic`), or 1x1, 3x3, 1x1 with four times the channels (`bottleneck`).

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input.

    Attributes:
      width: Channels of the 3x3 convolutions.
      block: `'basic'` or `'bottleneck'`.
      strides: Stride of the first 3x3 convolution and of the shortcut.
      dropout: Probability of dropout before the second convolution, in training.
      dtype: Type of the computation.
    """

    width: int
    block: str
    strides: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[B, H, W, C]` to features; `train` selects batch statistics instead of running ones."""
        steps = residual.convolutions(self.block, self.width, self.strides)
        features = steps[-1][0]
        activations, convolutions = [], []
        for number, (width, kernel, strides) in enumerate(steps, start=1):
            bn = layers.batch_norm(use_running_average=not train, dtype=self.dtype, name=f'bn{number}')
            relu = hooks.Relu(name=f'relu{number}')
            activations.append(lambda y, bn=bn, relu=relu: relu(bn(y)))
            convolutions.append(layers.conv(width, kernel, strides=strides, dtype=self.dtype, name=f'conv{number}'))
        drop = nn.Dropout(self.dropout, deterministic=not train, name='dropout')
        total = hooks.Residual(name='residual')

        def after_first_activation(y):
            y = convolutions[0](y)
            for number, (activation, conv) in enumerate(zip(activations[1:], convolutions[1:], strict=True)):
                y = activation(y)
                y = conv(drop(y) if number == 0 else y)
            return y

        if self.strides == 1 and x.shape[-1] == features:
            return total(x, lambda x: after_first_activation(activations[0](x)))
        shortcut = layers.conv(features, 1, strides=self.strides, dtype=self.dtype, name='downsample_conv')
        return total(activations[0](x), after_first_activation, shortcut)


class PreActResNet(nn.Module):
    """A pre-activation residual network; `__call__` returns logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      stage_sizes: Number of residual blocks in each stage; every stage after the first halves the image.
      widths: Channels of the 3x3 convolutions in each stage.
      stem_width: Channels of the first convolution.
      block: `'basic'` or `'bottleneck'`.
      final_norm: Whether a normalization and an activation come before the mean over positions, as in the paper; the
        common PyTorch implementation of PreAct ResNet-18 has neither.
      dropout: Probability of dropout between the convolutions of a block, in training.
      stem_strides: Stride of the first convolution.
      dtype: Type of the computation; parameters, statistics and logits stay float32.
    """

    num_classes: int
    stage_sizes: Sequence[int]
    widths: Sequence[int]
    stem_width: int
    block: str = 'basic'
    final_norm: bool = True
    dropout: float = 0.0
    stem_strides: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalized images `[B, H, W, C]` to logits `[B, num_classes]`."""
        x = layers.conv(self.stem_width, 3, strides=self.stem_strides, dtype=self.dtype, name='conv1')(x)
        for name, width, strides in residual.stages(self.stage_sizes, self.widths):
            x = PreActBlock(width, self.block, strides, self.dropout, self.dtype, name=name)(x, train=train)
        if self.final_norm:
            x = layers.batch_norm(use_running_average=not train, dtype=self.dtype, name='bn')(x)
            x = hooks.Relu(name='relu')(x)
        return layers.logits(x, self.num_classes, name='fc')


@zoo.MODELS.register
def preact_resnet(
    num_classes: int,
    *,
    stem_width: int = 64,
    stem_strides: int = 1,
    block: str = 'basic',
    stage_sizes: Sequence[int] = (2, 2, 2, 2),
    widths: Sequence[int] = (64, 128, 256, 512),
    final_norm: bool = True,
    dropout: float = 0.0,
    dtype=jnp.float32,
) -> PreActResNet:
    """A pre-activation residual network of any depth and width; for the arguments, see the attributes of `PreActResNet`.

    Raises:
      InputError: `stage_sizes` and `widths` differ in length, or a name or number is not allowed.
    """
    stages = residual.check_stages(stage_sizes, widths, block)
    numbers = ranges.check_sizes(stem_width=stem_width, stem_strides=stem_strides) | ranges.check_rates(dropout=dropout)
    return PreActResNet(num_classes, **stages, **numbers, final_norm=final_norm, dtype=dtype)


# There is no normalization at the end, as in the common PyTorch code for CIFAR (https://github.com/kuangliu/pytorch-cifar).
for _depth, _block, _sizes in (
    (18, 'basic', (2, 2, 2, 2)),
    (34, 'basic', (3, 4, 6, 3)),
    (50, 'bottleneck', (3, 4, 6, 3)),
    (101, 'bottleneck', (3, 4, 23, 3)),
):
    zoo.MODELS.add(
        f'cifar_preact_resnet{_depth}',
        functools.partial(preact_resnet, stage_sizes=_sizes, block=_block, final_norm=False),
    )


@zoo.MODELS.register
def cifar_wide_resnet(
    num_classes: int, *, depth: int = 28, widen_factor: int = 10, dropout: float = 0.0, dtype=jnp.float32
) -> PreActResNet:
    """The wide residual network WRN-d-k: three stages of pre-activation blocks, with widths 16 k, 32 k and 64 k.

    Args:
      num_classes: Number of classes.
      depth: Number of convolutions, d = 6n + 4 (10, 16, 22, 28, 34, 40, ...).
      widen_factor: k.
      dropout: Probability of dropout between the convolutions of a block; the paper uses 0 and 0.3.
      dtype: Type of the computation.

    Raises:
      InputError: `depth` is not 6n + 4, or a number is out of range.
    """
    sizes = residual.three_stage_sizes('wide ResNet', depth, 4)
    ranges.check_sizes(widen_factor=widen_factor)
    widths = tuple(width * widen_factor for width in (16, 32, 64))
    return preact_resnet(num_classes, stage_sizes=sizes, widths=widths, stem_width=16, dropout=dropout, dtype=dtype)


for _depth, _factor in ((16, 4), (28, 10), (34, 10), (40, 2)):
    zoo.MODELS.add(
        f'cifar_wide_resnet{_depth}_{_factor}',
        functools.partial(cifar_wide_resnet, depth=_depth, widen_factor=_factor),
    )

"""Residual networks: basic and bottleneck blocks, any depth and width, two kinds of shortcut, for small and large images.

He et al., Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385; with groups, Xie et al., Aggregated
Residual Transformations (ResNeXt), https://arxiv.org/abs/1611.05431. As in torchvision, the stride of a bottleneck is in its
3x3 convolution. Parameters are named as in PyTorch implementations (`conv1`, `bn1`, `layer1_0`, ..., `fc`).
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.core import checks, errors
from rfn_jax.models import hooks, layers, ranges, residual, zoo

SHORTCUTS = ('projection', 'parameter_free')


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions (`basic`), or 1x1, 3x3, 1x1 with four times the width at the end (`bottleneck`).

    Attributes:
      width: Channels of the 3x3 convolutions if `groups` and `base_width` have their default values.
      block: `'basic'` or `'bottleneck'`.
      strides: Stride of the first 3x3 convolution and of the shortcut.
      shortcut: The shortcut where the shape changes: `'projection'`, a 1x1 convolution with batch normalization, or
        `'parameter_free'`, option A of He et al., which takes every second pixel and pads with zero channels.
      groups: Groups of the 3x3 convolution of a bottleneck.
      base_width: The 3x3 convolution of a bottleneck has `width * base_width / 64` channels in each group.
      dtype: Type of the computation.
    """

    width: int
    block: str
    strides: int
    shortcut: str
    groups: int = 1
    base_width: int = 64
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[B, H, W, C]` to features; `train` selects batch statistics instead of running ones."""

        def conv_bn(features, kernel, strides, prefix, number='', groups=1):
            name = f'{prefix}conv{number}'
            conv = layers.conv(features, kernel, strides=strides, groups=groups, dtype=self.dtype, name=name)
            bn = layers.batch_norm(use_running_average=not train, dtype=self.dtype, name=f'{prefix}bn{number}')
            return lambda y: bn(conv(y))

        inner = self.width * self.base_width // 64 * self.groups
        steps = residual.convolutions(self.block, self.width, self.strides, inner)
        features = steps[-1][0]
        first, *rest = [
            conv_bn(*step, '', number, self.groups if (self.block, number) == ('bottleneck', 2) else 1)
            for number, step in enumerate(steps, start=1)
        ]
        relus = [hooks.Relu(name=f'relu{number}') for number in range(1, len(steps))]

        def branch(x):
            y = first(x)
            for relu, step in zip(relus, rest, strict=True):
                y = step(relu(y))
            return y

        if self.strides == 1 and x.shape[-1] == features:
            skip = hooks.identity
        elif self.shortcut == 'parameter_free':
            skip = functools.partial(_subsample_and_pad, strides=self.strides, features=features)
        else:
            skip = conv_bn(features, 1, self.strides, 'downsample_')
        return hooks.Relu(after_sum=True, name='relu')(hooks.Residual(name='residual')(x, branch, skip))


def _subsample_and_pad(x: jax.Array, strides: int, features: int) -> jax.Array:
    x = x[:, ::strides, ::strides]
    before = (features - x.shape[-1]) // 2
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, features - x.shape[-1] - before)))


class ResNet(nn.Module):
    """A residual network; `__call__` returns logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      stage_sizes: Number of residual blocks in each stage; every stage after the first halves the image.
      widths: Channels of the 3x3 convolutions in each stage.
      block: `'basic'` or `'bottleneck'`.
      shortcut: `'projection'` or `'parameter_free'`.
      stem_kernel: Rows and columns of the first convolution: 3 for small images, 7 for ImageNet.
      stem_strides: Stride of the first convolution.
      stem_pool: Whether 3x3 max pooling with stride 2 follows the first convolution, as for ImageNet.
      groups: Groups of the 3x3 convolutions of bottlenecks.
      base_width: Channels in each of these groups, in 64ths of the width of the stage.
      dtype: Type of the computation; parameters, statistics and logits stay float32.
    """

    num_classes: int
    stage_sizes: Sequence[int]
    widths: Sequence[int]
    block: str = 'basic'
    shortcut: str = 'projection'
    stem_kernel: int = 3
    stem_strides: int = 1
    stem_pool: bool = False
    groups: int = 1
    base_width: int = 64
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalized images `[B, H, W, C]` to logits `[B, num_classes]`."""
        conv1 = layers.conv(self.widths[0], self.stem_kernel, strides=self.stem_strides, dtype=self.dtype, name='conv1')
        x = conv1(x)
        x = layers.batch_norm(use_running_average=not train, dtype=self.dtype, name='bn1')(x)
        x = hooks.Relu(name='relu1')(x)
        if self.stem_pool:
            x = layers.max_pool(x, 3, strides=2, padding=1)
        options = (self.shortcut, self.groups, self.base_width, self.dtype)
        for name, width, strides in residual.stages(self.stage_sizes, self.widths):
            x = ResidualBlock(width, self.block, strides, *options, name=name)(x, train=train)
        return layers.logits(x, self.num_classes, name='fc')


@zoo.MODELS.register
def resnet(
    num_classes: int,
    *,
    stage_sizes: Sequence[int] = (2, 2, 2, 2),
    widths: Sequence[int] = (64, 128, 256, 512),
    block: str = 'basic',
    shortcut: str = 'projection',
    stem_kernel: int = 3,
    stem_strides: int = 1,
    stem_pool: bool = False,
    groups: int = 1,
    base_width: int = 64,
    dtype=jnp.float32,
) -> ResNet:
    """A residual network of any depth and width; for the arguments, see the attributes of `ResNet`.

    Raises:
      InputError: `stage_sizes` and `widths` differ in length, or a name or number is not allowed.
    """
    options = {
        **residual.check_stages(stage_sizes, widths, block),
        'shortcut': checks.one_of('shortcut', shortcut, SHORTCUTS),
        **ranges.check_odd(stem_kernel=stem_kernel),
        **ranges.check_sizes(stem_strides=stem_strides, groups=groups, base_width=base_width),
    }
    if block == 'basic' and (groups, base_width) != (1, 64):
        raise errors.InputError(
            f"groups {groups} and base_width {base_width} need block 'bottleneck'; with 'basic' they must be 1 and 64"
        )
    if any(width * base_width % 64 for width in widths):
        raise errors.InputError(f'widths {tuple(widths)} times base_width {base_width} must be multiples of 64')
    return ResNet(num_classes, **options, stem_pool=stem_pool, dtype=dtype)


_IMAGENET = {'stem_kernel': 7, 'stem_strides': 2, 'stem_pool': True}
_BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_BOTTLENECK = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

for _depth, _sizes in {**_BASIC, **_BOTTLENECK}.items():
    _form = functools.partial(resnet, stage_sizes=_sizes, block='basic' if _depth in _BASIC else 'bottleneck')
    zoo.MODELS.add(f'resnet{_depth}', functools.partial(_form, **_IMAGENET))
    zoo.MODELS.add(f'cifar_resnet{_depth}', _form)

_BOTTLENECKS = functools.partial(resnet, block='bottleneck', **_IMAGENET)
for _depth, _groups, _width in ((50, 32, 4), (101, 32, 8)):
    zoo.MODELS.add(
        f'resnext{_depth}_{_groups}x{_width}d',
        functools.partial(_BOTTLENECKS, stage_sizes=_BOTTLENECK[_depth], groups=_groups, base_width=_width),
    )
for _depth in (50, 101):
    zoo.MODELS.add(
        f'wide_resnet{_depth}_2', functools.partial(_BOTTLENECKS, stage_sizes=_BOTTLENECK[_depth], base_width=128)
    )


@zoo.MODELS.register
def cifar_resnet(
    num_classes: int, *, depth: int = 20, width: int = 16, shortcut: str = 'parameter_free', dtype=jnp.float32
) -> ResNet:
    """The CIFAR network of He et al., of depth 6n + 2 (20, 32, 44, 56, 110, ...): three narrow stages of basic blocks.

    `cifar_resnet18`, 34, 50, 101 and 152 are not this network but the wider networks for ImageNet with a stem for small
    images.

    Args:
      num_classes: Number of classes.
      depth: Number of layers with weights; 6n + 2.
      width: Channels of the first stage; the next two have twice and four times as many.
      shortcut: `'parameter_free'`, as in the paper, or `'projection'`.
      dtype: Type of the computation.

    Raises:
      InputError: `depth` is not 6n + 2.
    """
    sizes = residual.three_stage_sizes('CIFAR ResNet', depth, 2)
    widths = (width, 2 * width, 4 * width)
    return resnet(num_classes, stage_sizes=sizes, widths=widths, shortcut=shortcut, dtype=dtype)


for _depth in (20, 32, 44, 56, 110):
    zoo.MODELS.add(f'cifar_resnet{_depth}', functools.partial(cifar_resnet, depth=_depth))

"""Inverted residual blocks, which MobileNetV2, MobileNetV3 and EfficientNet are made of.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, https://arxiv.org/abs/1801.04381; Hu et al.,
Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507. The names of the layers of a block end in their position
(`expand_0`, `depthwise_1`, ...), which counts only the layers that the block has, as in torchvision's state dicts.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.models import hooks, layers


def round_channels(channels: float) -> int:
    """Rounds a scaled number of channels to a multiple of 8 that is at least 8 and at least nine tenths of the number."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class SqueezeExcite(nn.Module):
    """Scales each channel by a number in [0, 1], which two dense layers compute from the means of all channels.

    Attributes:
      width: Channels between the two layers, which are 1x1 convolutions.
      activation: Activation between the two layers; a plain function, because gates have no hooks.
      gate: Function that maps the output of the second layer to [0, 1].
      dtype: Type of the computation.
    """

    width: int
    activation: Callable[[jax.Array], jax.Array]
    gate: Callable[[jax.Array], jax.Array]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The features `[B, H, W, C]`, scaled."""
        scale = layers.mean_over_positions(x)[:, None, None]
        scale = layers.conv(self.width, 1, use_bias=True, dtype=self.dtype, name='fc1')(scale)
        scale = self.activation(scale)
        scale = layers.conv(x.shape[-1], 1, use_bias=True, dtype=self.dtype, name='fc2')(scale)
        return self.gate(scale) * x


class InvertedResidual(nn.Module):
    """A 1x1 convolution to more channels, a depthwise one, and a 1x1 one to fewer channels, which has no activation.

    The first one is omitted if it would not change the number of channels, and the residual sum if the shape changes.

    Attributes:
      expanded: Channels of the depthwise convolution.
      features: Output channels.
      kernel: Rows and columns of the depthwise convolution.
      strides: Stride of the depthwise convolution.
      activation: Class of the activations, except for the one inside squeeze-and-excitation.
      squeeze: Channels inside squeeze-and-excitation, which follows the depthwise convolution; 0 for none.
      squeeze_activation: Activation inside squeeze-and-excitation.
      gate: Gate of squeeze-and-excitation.
      stochastic_depth: Probability of dropping the branch, in training.
      norm: Constructor of the normalizations.
      padding: Padding of the convolutions, as in `layers.ConvNorm`.
      dtype: Type of the computation.
    """

    expanded: int
    features: int
    kernel: int
    strides: int
    activation: type[hooks.Activation]
    squeeze: int = 0
    squeeze_activation: Callable[[jax.Array], jax.Array] = nn.relu
    gate: Callable[[jax.Array], jax.Array] = nn.sigmoid
    stochastic_depth: float = 0.0
    norm: Callable[..., nn.BatchNorm] = layers.batch_norm
    padding: Literal['same'] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[B, H, W, C]` to features; `train` selects batch statistics instead of running ones."""
        steps = []

        def add(kind, features, kernel=1, **options):
            name = f'{kind}_{len(steps)}'
            options |= {'padding': self.padding, 'norm': self.norm, 'dtype': self.dtype}
            module = layers.ConvNorm(features, kernel, **options, name=name)
            steps.append(functools.partial(module, train=train))

        if self.expanded != x.shape[-1]:
            add('expand', self.expanded, activation=self.activation)
        depthwise = {'strides': self.strides, 'groups': self.expanded, 'activation': self.activation}
        add('depthwise', self.expanded, self.kernel, **depthwise)
        if self.squeeze:
            options = (self.squeeze_activation, self.gate, self.dtype)
            steps.append(SqueezeExcite(self.squeeze, *options, name=f'squeeze_excite_{len(steps)}'))
        add('project', self.features)
        drop = layers.StochasticDepth(self.stochastic_depth, name='stochastic_depth')

        def branch(x):
            for step in steps:
                x = step(x)
            return x

        if self.strides > 1 or x.shape[-1] != self.features:
            return branch(x)
        return hooks.Residual(name='residual')(x, lambda x: drop(branch(x), train=train))


class InvertedResidualNetwork(nn.Module):
    """Inverted residual blocks between two convolutions; `__call__` returns logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      stem_width: Channels of the first convolution.
      head_width: Channels of the last convolution.
      stem_strides: Stride of the first convolution.
      dropout: Probability of dropout before the last dense layer, in training.
      dtype: Type of the computation; parameters, statistics and logits stay float32.
      activation: Class of the activations; a block may have a different one.
      norm: Constructor of the normalizations.
      padding: Padding of the convolutions, as in `layers.ConvNorm`.
      classifier_init: Initialization of the kernels of the dense layers.
    """

    num_classes: int
    stem_width: int
    head_width: int
    stem_strides: int
    dropout: float
    dtype: jnp.dtype = jnp.float32

    activation: ClassVar[type[hooks.Activation]]
    norm: ClassVar[Callable[..., nn.BatchNorm]] = staticmethod(layers.batch_norm)
    padding: ClassVar[Literal['same'] | None] = None
    classifier_init: ClassVar[nn.initializers.Initializer] = staticmethod(nn.initializers.normal(0.01))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalized images `[B, H, W, C]` to logits `[B, num_classes]`."""
        options = {'activation': self.activation, 'norm': self.norm, 'padding': self.padding, 'dtype': self.dtype}
        conv_norm = functools.partial(layers.ConvNorm, **options)
        x = conv_norm(self.stem_width, 3, self.stem_strides, name='features_0')(x, train=train)
        blocks = self.block_options()
        for name, block in blocks.items():
            x = InvertedResidual(**{**options, **block}, name=name)(x, train=train)
        last = f'features_{1 + max(int(name.split("_")[1]) for name in blocks)}'
        x = conv_norm(self.head_width, 1, name=last)(x, train=train)
        return self.head(x, train=train)

    def block_options(self) -> dict[str, dict[str, Any]]:
        """The attributes of each block, by the name of the block: `features_<block>`, or `features_<stage>_<block>`."""
        raise NotImplementedError

    def head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps the last features to logits."""
        options = {'dropout': self.dropout, 'train': train, 'kernel_init': self.classifier_init}
        return layers.logits(x, self.num_classes, **options, name='classifier')

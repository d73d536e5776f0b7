"""What GoogLeNet and Inception v3 share: blocks of parallel branches, and auxiliary heads that are used only in training."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.models import hooks, layers

# Computes the branches of a block from its input `x` and a function `conv`. `conv(x, name, *steps)` applies one convolution
# per step, each given as (features, kernel) or (features, kernel, strides). If there are several, they are named `name_1`,
# `name_2` and so on. Those with strides have no padding.
Branches = Callable[[jax.Array, Callable[..., jax.Array]], Sequence[jax.Array]]


@dataclasses.dataclass(frozen=True)
class Convolutions:
    """Makes and applies the convolutions of a network, each followed by a normalization and a ReLU.

    Attributes:
      width: Factor that scales all channels.
      deviation: Standard deviation of the initial kernels.
      dtype: Type of the computation.
    """

    width: float
    deviation: float
    dtype: jnp.dtype

    def __call__(
        self, x: jax.Array, name: str, features: int, kernel, *strides: int, train: bool, padding: int | None = None
    ) -> jax.Array:
        """Applies a convolution to features `[B, H, W, C]`; it becomes the submodule `name` of the calling module."""
        module = layers.ConvNorm(
            layers.scale_channels(features, self.width),
            kernel,
            *strides,
            padding=padding,
            activation=hooks.Relu,
            norm=functools.partial(layers.batch_norm, epsilon=1e-3),
            kernel_init=nn.initializers.normal(self.deviation),
            dtype=self.dtype,
            name=name,
        )
        return module(x, train=train)


class InceptionBlock(nn.Module):
    """Parallel branches, whose outputs are concatenated.

    Attributes:
      branches: Computes the branches from features and a function that applies convolutions.
      convolutions: Makes and applies the convolutions.
    """

    branches: Branches
    convolutions: Convolutions

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[B, H, W, C]` to features; `train` selects batch statistics instead of running ones."""

        def conv(x, name, *steps):
            for number, step in enumerate(steps, start=1):
                step_name = f'{name}_{number}' if len(steps) > 1 else name
                x = self.convolutions(x, step_name, *step, train=train, padding=0 if len(step) > 2 else None)
            return x

        return jnp.concatenate(self.branches(x, conv), axis=-1)


class InceptionNetwork(nn.Module):
    """A network of inception blocks; `__call__` returns logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      short_stem: Whether the stem is a single 3x3 convolution that keeps the size of the image, for small images.
      auxiliary: Whether there are auxiliary heads; in training, their logits are recorded in `'auxiliary_logits'`.
      auxiliary_weight: Weight of the cross-entropy of each auxiliary head in the training loss.
      dropout: Probability of dropout before the last layer, in training.
      width: Factor that scales all channels.
      dtype: Type of the computation; parameters, statistics and logits stay float32.
      blocks: The branches of each block, by the name of the block.
      deviation: Standard deviation of the initial kernels.
    """

    num_classes: int
    short_stem: bool
    auxiliary: bool
    auxiliary_weight: float
    dropout: float
    width: float
    dtype: jnp.dtype = jnp.float32

    blocks: ClassVar[Mapping[str, Branches]]
    deviation: ClassVar[float]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalized images `[B, H, W, C]` to logits `[B, num_classes]`."""
        conv = Convolutions(self.width, self.deviation, self.dtype)
        x = self.stem(x, functools.partial(conv, train=train))
        for name, branches in self.blocks.items():
            x = InceptionBlock(branches, conv, name=name)(x, train=train)
            if self.auxiliary and (train or self.is_initializing()):
                self.apply_auxiliary_head(x, name, conv, train=train)
            x = self.pool(x, name)
        init = nn.initializers.normal(self.deviation)
        return layers.logits(x, self.num_classes, dropout=self.dropout, train=train, kernel_init=init, name='fc')

    def stem(self, x: jax.Array, conv: Callable[..., jax.Array]) -> jax.Array:
        """Maps images `[B, H, W, C]` to the input of the first block."""
        raise NotImplementedError

    def apply_auxiliary_head(self, x: jax.Array, name: str, conv: Convolutions, *, train: bool) -> None:
        """Applies the auxiliary head that follows the block `name`, if there is one, to the features of the block."""
        raise NotImplementedError

    def pool(self, x: jax.Array, name: str) -> jax.Array:
        """Applies the pooling that follows the block `name`; none by default."""
        return x

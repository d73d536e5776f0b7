"""What GoogLeNet and Inception v3 have in common: blocks of parallel branches, and heads that only training uses."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.models import hooks, layers

# Gives the branches of a block. `conv(x, name, *steps)` is a chain of convolutions with (features, kernel) or (features,
# kernel, strides); the parts of one that has several are numbered, `name_1`, `name_2`. Those with strides have no padding.
Branches = Callable[[jax.Array, Callable[..., jax.Array]], Sequence[jax.Array]]


@dataclasses.dataclass(frozen=True)
class Convolutions:
    """How the convolutions of a network are made; each has a normalization and a ReLU behind it.

    Attributes:
      width: Factor of all channels.
      deviation: Standard deviation of the initial kernels.
      dtype: Type of the computation.
    """

    width: float
    deviation: float
    dtype: jnp.dtype

    def __call__(
        self, x: jax.Array, name: str, features: int, kernel, *strides: int, train: bool, padding: int | None = None
    ) -> jax.Array:
        """Applies the convolution `name` of the module at work to features `[B, H, W, C]`."""
        module = layers.ConvNorm(
            layers.scaled(features, self.width),
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
    """Branches side by side.

    Attributes:
      branches: Gives the branches, from features and a function that applies convolutions.
      convolutions: How they are made.
    """

    branches: Branches
    convolutions: Convolutions

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[B, H, W, C]` to features; `train` chooses batch statistics over running ones."""

        def conv(x, name, *steps):
            for number, step in enumerate(steps, start=1):
                part = f'{name}_{number}' if len(steps) > 1 else name
                x = self.convolutions(x, part, *step, train=train, padding=0 if len(step) > 2 else None)
            return x

        return jnp.concatenate(self.branches(x, conv), axis=-1)


class InceptionNetwork(nn.Module):
    """A network of inception blocks; `__call__` gives logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      short_stem: Whether the stem is one 3x3 convolution that keeps the image as large as it is, for small images.
      auxiliary: Whether there are auxiliary heads, whose logits training records in `'auxiliary_logits'`.
      auxiliary_weight: Weight of the cross-entropy of each of them in the loss of training.
      dropout: Probability of dropout before the last layer, in training.
      width: Factor of all channels.
      dtype: Type of the computation; parameters, statistics and logits stay float32.
      blocks: The branches of each block by its name.
      deviation: Standard deviation of initial kernels.
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
                self.head(x, name, conv, train=train)
            x = self.pool(x, name)
        init = nn.initializers.normal(self.deviation)
        return layers.logits(x, self.num_classes, dropout=self.dropout, train=train, kernel_init=init, name='fc')

    def stem(self, x: jax.Array, conv: Callable[..., jax.Array]) -> jax.Array:
        """Images `[B, H, W, C]` to the features that the first block takes."""
        raise NotImplementedError

    def head(self, x: jax.Array, name: str, conv: Convolutions, *, train: bool) -> None:
        """Applies the auxiliary head behind a block, if there is one, to the features of the block."""
        raise NotImplementedError

    def pool(self, x: jax.Array, name: str) -> jax.Array:
        """What comes between a block and the next one; nothing by default."""
        return x

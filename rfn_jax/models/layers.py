"""The layers of the zoo, with PyTorch's padding, epsilon and momentum, and torchvision's initialization of kernels.

All images are `[B, H, W, C]`. Padding is always explicit, so that weights trained elsewhere keep their meaning.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax.models import convolution

conv_init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
dense_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
transformer_init = nn.initializers.normal(0.02)  # used by Swin transformers, and by ConvNeXt, which follows them

batch_norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)
layer_norm = functools.partial(nn.LayerNorm, epsilon=1e-5)
dense = functools.partial(nn.Dense, kernel_init=dense_init)
transformer_dense = functools.partial(dense, kernel_init=transformer_init)


def conv(
    features: int,
    kernel: int | tuple[int, int],
    *,
    strides: int = 1,
    padding: int | Sequence[int | tuple[int, int]] | None = None,
    groups: int = 1,
    use_bias: bool = False,
    dtype=jnp.float32,
    kernel_init=conv_init,
    name: str | None,
):
    """A convolution with explicit padding.

    Args:
      features: Output channels.
      kernel: Rows and columns of the kernel, or one number for both.
      strides: Stride in both directions.
      padding: Rows and columns added on each side, or one number for both; `kernel // 2` by default. A pair in place of
        either number is what is added before and after.
      groups: Number of groups that the channels are split into.
      use_bias: Whether to add a bias; models with batch normalization do not need one.
      dtype: Type of the computation.
      kernel_init: Initialization of the kernel.
      name: Name of the parameters.

    Returns:
      A `flax.linen.Conv`.
    """
    kernel = _pair(kernel)
    padding = tuple(k // 2 for k in kernel) if padding is None else _pair(padding)
    return nn.Conv(
        features,
        kernel,
        strides=strides,
        padding=[(p, p) if isinstance(p, int) else p for p in padding],
        feature_group_count=groups,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=kernel_init,
        conv_general_dilated=convolution.conv_general_dilated,
        name=name,
    )


def same_padding(
    image_size: tuple[int, int], kernel: int | tuple[int, int], strides: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """TensorFlow's padding `SAME`: what is added before and after the rows, and before and after the columns.

    There are `ceil(size / strides)` outputs, and no more padding than they need; if it is odd, there is one more at the end.
    With strides above 1 the windows therefore start elsewhere than with PyTorch's `kernel // 2`, as long as the size is even.

    Args:
      image_size: Rows and columns of the image.
      kernel: Rows and columns of the kernel, or one number for both.
      strides: Stride in both directions.
    """
    needed = [
        max((math.ceil(size / strides) - 1) * strides + k - size, 0)
        for size, k in zip(image_size, _pair(kernel), strict=True)
    ]
    rows, columns = ((total // 2, total - total // 2) for total in needed)
    return rows, columns


def max_pool(
    x: jax.Array, size: int = 2, *, strides: int | None = None, padding: int = 0, ceil_mode: bool = False
) -> jax.Array:
    """Maximum over `size x size` windows; a padded value is never the maximum.

    Args:
      x: `[B, H, W, C]`.
      size: Rows and columns of a window.
      strides: Distance between windows; `size` by default.
      padding: Rows and columns added on each side.
      ceil_mode: Whether to keep a last window that extends past the end, as long as it starts inside; by default it is
        dropped.
    """
    strides = strides or size
    pads = [(padding, padding + _extra_rows(length, size, strides, padding, ceil_mode)) for length in x.shape[1:3]]
    return nn.max_pool(x, (size, size), strides=(strides, strides), padding=pads)


def _extra_rows(length: int, size: int, strides: int, padding: int, ceil_mode: bool) -> int:
    """Rows to add at the end so that the last window of PyTorch's `ceil_mode` is full."""
    if not ceil_mode:
        return 0
    count = math.ceil((length + 2 * padding - size) / strides) + 1
    if (count - 1) * strides >= length + padding:
        count -= 1
    return max((count - 1) * strides + size - length - 2 * padding, 0)


def avg_pool(x: jax.Array, size: int, *, strides: int | None = None, padding: int = 0) -> jax.Array:
    """Mean over `size x size` windows that are `strides` apart (`size` by default); padding counts as zeros."""
    strides = strides or size
    return nn.avg_pool(x, (size, size), strides=(strides, strides), padding=[(padding, padding)] * 2)


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
    """Mean over `size x size` bins that cover an image of any size: `[B, H, W, C]` to `[B, size, size, C]`.

    Bin i of n holds the rows from `floor(i H / n)` up to, but not including, `ceil((i + 1) H / n)`, as in PyTorch.
    """
    for axis in (1, 2):
        length = x.shape[axis]
        if length != size:
            bins = np.zeros((length, size), np.float32)
            for i in range(size):
                start, stop = i * length // size, -(-(i + 1) * length // size)
                bins[start:stop, i] = 1 / (stop - start)
            x = jnp.moveaxis(jnp.tensordot(x, jnp.asarray(bins, x.dtype), (axis, 0)), -1, axis)
    return x


def mean_over_positions(x: jax.Array) -> jax.Array:
    """Global average pooling: `[B, H, W, C]` to `[B, C]`."""
    return jnp.mean(x, axis=(1, 2))


def logits(
    x: jax.Array,
    num_classes: int,
    *,
    dropout: float = 0.0,
    train: bool = False,
    kernel_init: nn.initializers.Initializer = dense_init,
    name: str,
) -> jax.Array:
    """How most networks end: the mean over positions, dropout and a dense layer, in float32.

    Args:
      x: Features `[B, H, W, C]`.
      num_classes: Number of classes.
      dropout: Probability of dropout.
      train: Whether to apply dropout.
      kernel_init: Initialization of the kernel.
      name: Name of the dense layer.

    Returns:
      `[B, num_classes]`.
    """
    x = mean_over_positions(x).astype(jnp.float32)
    if dropout:
        x = nn.Dropout(dropout, deterministic=not train, name='dropout')(x)
    return dense(num_classes, kernel_init=kernel_init, name=name)(x)


def flatten(x: jax.Array) -> jax.Array:
    """`[B, H, W, C]` to `[B, C H W]`, channels first as in PyTorch, so that its dense kernels can be used unchanged."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def scale_channels(features: int, width: float) -> int:
    """A number of channels times `width`, rounded, and at least 1."""
    return max(1, round(width * features))


class ConvNorm(nn.Module):
    """A convolution followed by batch normalization and, optionally, an activation.

    Attributes:
      features: Output channels.
      kernel: Rows and columns of the kernel, or one number for both.
      strides: Stride in both directions.
      padding: Rows and columns added on each side, `kernel // 2` by default; or `'same'` for `same_padding`.
      groups: Number of groups that the channels are split into.
      activation: Class of the activation, from `hooks`; None for no activation.
      norm: Constructor of the normalization.
      kernel_init: Initialization of the kernel.
      dtype: Type of the computation.
    """

    features: int
    kernel: int | tuple[int, int]
    strides: int = 1
    padding: int | Literal['same'] | None = None
    groups: int = 1
    activation: type[nn.Module] | None = None
    norm: Callable[..., nn.BatchNorm] = batch_norm
    kernel_init: nn.initializers.Initializer = conv_init
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[B, H, W, C]` to features; `train` selects batch statistics instead of running ones."""
        same = self.padding == 'same'
        padding = same_padding(x.shape[1:3], self.kernel, self.strides) if same else self.padding
        options = {'strides': self.strides, 'padding': padding, 'groups': self.groups}
        options |= {'kernel_init': self.kernel_init, 'dtype': self.dtype}
        x = conv(self.features, self.kernel, **options, name='conv')(x)
        x = self.norm(use_running_average=not train, dtype=self.dtype, name='bn')(x)
        return self.activation(name='activation')(x) if self.activation else x


class StochasticDepth(nn.Module):
    """Drops a residual branch in training, for each example with some probability, and scales it up otherwise.

    Huang et al., Deep Networks with Stochastic Depth, https://arxiv.org/abs/1603.09382. The random numbers come from the
    `'dropout'` stream.

    Attributes:
      rate: Probability of dropping the branch, in [0, 1).
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`x` `[B, ...]`; in training, dropped examples are zero and the others are divided by `1 - rate`."""
        if not train or not self.rate:
            return x
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng('dropout'), 1 - self.rate, shape)
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x))


def _pair(value: int | Sequence) -> tuple:
    return (value, value) if isinstance(value, int) else tuple(value)

"""The layers of the zoo, with PyTorch's padding, epsilon and momentum, and the initialisation of torchvision's kernels.

All images are `[B, H, W, C]`. Padding is always explicit, so that weights trained elsewhere keep their meaning.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.models import convolution

conv_init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
dense_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')

batch_norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)
dense = functools.partial(nn.Dense, kernel_init=dense_init)


def conv(features: int, kernel: int, *, strides: int = 1, use_bias: bool = False, dtype=jnp.float32, name: str | None):
    """A square convolution with padding `kernel // 2` on every side.

    Args:
      features: Output channels.
      kernel: Rows and columns of the kernel.
      strides: Stride in both directions.
      use_bias: Whether to add a bias; models with batch normalisation need none.
      dtype: Type of the computation.
      name: Name of the parameters.

    Returns:
      A `flax.linen.Conv`.
    """
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=strides,
        padding=[(kernel // 2, kernel // 2)] * 2,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=conv_init,
        conv_general_dilated=convolution.conv_general_dilated,
        name=name,
    )


def max_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """Maximum over `size x size` windows that do not overlap; rows and columns that fill no window are dropped."""
    return nn.max_pool(x, (size, size), strides=(size, size))


def mean_over_positions(x: jax.Array) -> jax.Array:
    """Global average pooling: `[B, H, W, C]` to `[B, C]`."""
    return jnp.mean(x, axis=(1, 2))

"""Swin transformers: attention inside windows, which are shifted in every second block, and merging of patches.

Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, https://arxiv.org/abs/2103.14030.
Parameters are named as in torchvision, where `features` contains the embedding of patches (0) and then, alternately, the
blocks of a stage and the merging of patches before the next stage.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax.core import errors
from rfn_jax.models import hooks, layers, ranges, transformer, zoo


class WindowAttention(nn.Module):
    """Self-attention among the positions of a window, with a learned bias for each relative position.

    If windows do not divide the image, it is padded with zeros at the end; padded positions take part like all others.

    Attributes:
      heads: Number of attention heads; must divide the channels.
      window_size: Rows and columns of a window.
      shift: Rows and columns that the windows are shifted by, cyclically; positions that only the shift has made neighbors
        do not attend to each other. Along an axis with a single window there is no shift.
      dtype: Type of the computation.
    """

    heads: int
    window_size: int
    shift: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps features `[B, H, W, C]` to features of the same shape."""
        _, height, width, channels = x.shape
        size = self.window_size
        padded = tuple(-(-length // size) * size for length in (height, width))
        shifts = tuple(self.shift if length > size else 0 for length in padded)
        table = self.param('relative_position_bias_table', layers.transformer_init, ((2 * size - 1) ** 2, self.heads))
        bias = jnp.moveaxis(table[relative_positions(size)], -1, 0)
        if any(shifts):
            bias = bias + shift_mask(padded, shifts, size)[:, None]

        x = jnp.pad(x, ((0, 0), (0, padded[0] - height), (0, padded[1] - width), (0, 0)))
        x = _split_windows(jnp.roll(x, [-shift for shift in shifts], (1, 2)), size)
        qkv = layers.transformer_dense(3 * channels, dtype=self.dtype, name='qkv')(x)
        qkv = jnp.moveaxis(qkv.reshape(*x.shape[:3], 3, self.heads, -1), 3, 0)
        x = nn.dot_product_attention(*qkv, bias=bias.astype(self.dtype), dtype=self.dtype).reshape(x.shape)
        x = layers.transformer_dense(channels, dtype=self.dtype, name='proj')(x)
        return jnp.roll(_join_windows(x, padded, size), shifts, (1, 2))[:, :height, :width]


def relative_positions(size: int) -> np.ndarray:
    """Index into the table of biases, `[size^2, size^2]`, for each query and key of a window.

    The table lists differences of rows and, for each of them, differences of columns, both from `1 - size` to `size - 1`.
    """
    positions = np.stack(np.divmod(np.arange(size * size), size))
    rows, columns = positions[:, :, None] - positions[:, None, :] + size - 1
    return rows * (2 * size - 1) + columns


def shift_mask(shape: tuple[int, int], shifts: tuple[int, int], size: int) -> np.ndarray:
    """Mask that separates positions which only the shift has brought into the same window.

    Args:
      shape: Rows and columns of the padded image.
      shifts: Rows and columns that the image was shifted by.
      size: Rows and columns of a window.

    Returns:
      float32 `[windows, size^2, size^2]`, to be added to the attention scores: -100 for such pairs of positions, 0 otherwise.
    """
    rows, columns = (np.arange(length) >= length - shift for length, shift in zip(shape, shifts, strict=True))
    region = _split_windows((2 * rows[:, None] + columns)[None, :, :, None], size)[0, :, :, 0]
    return np.where(region[:, :, None] == region[:, None, :], np.float32(0), np.float32(-100))


def _split_windows(x, size: int):
    """Maps `[B, H, W, C]` to `[B, windows, size^2, C]`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // size, size, width // size, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, size * size, channels)


def _join_windows(x: jax.Array, shape: tuple[int, int], size: int) -> jax.Array:
    """Inverts `_split_windows`."""
    batch, _, _, channels = x.shape
    x = x.reshape(batch, shape[0] // size, shape[1] // size, size, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, *shape, channels)


class SwinBlock(nn.Module):
    """Attention inside windows and a two-layer perceptron, each after a layer norm and with a skip connection.

    Attributes:
      heads: Number of attention heads.
      window_size: Rows and columns of a window.
      shift: Rows and columns that the windows are shifted by.
      mlp_ratio: Hidden width of the perceptron, in multiples of the width of the block.
      dropout: Probability of dropout after the attention and after each layer of the perceptron, in training.
      stochastic_depth: Probability that a branch is dropped for an example, in training.
      dtype: Type of the computation.
    """

    heads: int
    window_size: int
    shift: int
    mlp_ratio: int
    dropout: float
    stochastic_depth: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[B, H, W, C]` to features of the same shape."""
        channels = x.shape[-1]
        norm1, norm2 = (layers.layer_norm(dtype=self.dtype, name=name) for name in ('norm1', 'norm2'))
        attention = WindowAttention(self.heads, self.window_size, self.shift, self.dtype, name='attn')
        dense = functools.partial(layers.transformer_dense, dtype=self.dtype)
        drop = nn.Dropout(self.dropout, deterministic=not train, name='drop')
        perceptron = transformer.perceptron(self.mlp_ratio * channels, channels, dense=dense, drop=drop)
        depth = layers.StochasticDepth(self.stochastic_depth, name='depth')

        x = hooks.Residual(name='residual1')(x, lambda x: depth(drop(attention(norm1(x))), train=train))
        return hooks.Residual(name='residual2')(x, lambda x: depth(perceptron(norm2(x)), train=train))


class PatchMerging(nn.Module):
    """Joins the channels of 2x2 positions and maps them to twice the channels of one; odd sizes are padded with zeros.

    Attributes:
      dtype: Type of the computation.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps features `[B, H, W, C]` to `[B, ceil(H / 2), ceil(W / 2), 2 C]`."""
        _, height, width, channels = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        x = jnp.concatenate([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], axis=-1)
        x = layers.layer_norm(dtype=self.dtype, name='norm')(x)
        return layers.transformer_dense(2 * channels, use_bias=False, dtype=self.dtype, name='reduction')(x)


class Swin(nn.Module):
    """A Swin transformer; `__call__` returns logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      patch_size: Rows and columns of a patch.
      width: Channels of the first stage; each further stage has twice as many, and half the rows and columns.
      depths: Number of blocks in each stage; the windows of every second block are shifted by half a window.
      heads: Number of attention heads in each stage.
      window_size: Rows and columns of a window.
      mlp_ratio: Hidden width of the perceptrons, in multiples of the width of the stage.
      dropout: Probability of dropout in the blocks, in training.
      stochastic_depth: Probability that a branch of the last block is dropped for an example, in training; the probability
        grows linearly from 0 at the first block.
      dtype: Type of the computation; parameters and logits stay float32.
    """

    num_classes: int
    patch_size: int
    width: int
    depths: Sequence[int]
    heads: Sequence[int]
    window_size: int
    mlp_ratio: int
    dropout: float
    stochastic_depth: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalized images `[B, H, W, C]` to logits `[B, num_classes]`."""
        ranges.check_image(x, self.patch_size, 'Swin transformer')
        options = {'kernel_init': layers.dense_init, 'dtype': self.dtype}
        x = transformer.patches(self.width, self.patch_size, **options, name='features_0_0')(x)
        x = layers.layer_norm(dtype=self.dtype, name='features_0_2')(x)
        for stage, blocks in enumerate(transformer.stages(self.depths, self.stochastic_depth)):
            if stage > 0:
                x = PatchMerging(self.dtype, name=f'features_{2 * stage}')(x)
            for index, (name, rate) in enumerate(blocks):
                block = SwinBlock(
                    self.heads[stage],
                    self.window_size,
                    index % 2 * (self.window_size // 2),
                    self.mlp_ratio,
                    self.dropout,
                    rate,
                    self.dtype,
                    name=name,
                )
                x = block(x, train=train)
        x = layers.layer_norm(dtype=self.dtype, name='norm')(x)
        return layers.logits(x, self.num_classes, kernel_init=layers.transformer_init, name='head')


@zoo.MODELS.register
def swin(
    num_classes: int,
    *,
    patch_size: int = 4,
    width: int = 96,
    depths: Sequence[int] = (2, 2, 6, 2),
    heads: Sequence[int] = (3, 6, 12, 24),
    window_size: int = 7,
    mlp_ratio: int = 4,
    dropout: float = 0.0,
    stochastic_depth: float = 0.2,
    dtype=jnp.float32,
) -> Swin:
    """A Swin transformer of any size; for the arguments, see the attributes of `Swin`.

    The image needs at least `patch_size` rows and columns; those at the end that do not fill a patch are dropped.

    Raises:
      InputError: `depths` and `heads` differ in length, a size is not positive, the heads of a stage do not divide its
        channels, or a rate is not in [0, 1).
    """
    options = {
        **ranges.check_stages(depths=depths, heads=heads),
        **ranges.check_sizes(patch_size=patch_size, width=width, window_size=window_size, mlp_ratio=mlp_ratio),
        **ranges.check_rates(dropout=dropout, stochastic_depth=stochastic_depth),
    }
    if any(width * 2**stage % count for stage, count in enumerate(heads)):
        raise errors.InputError(
            f'heads {tuple(heads)} must divide the channels of their stages, {width} and twice as many in each further one'
        )
    return Swin(num_classes, **options, dtype=dtype)


# For 32x32 images: Swin-T without its last stage. With patches of 2x2, the stages have 16, 8 and 4 rows, which windows of 4
# divide; a fourth stage of 2 rows would be smaller than a window.
zoo.MODELS.add(
    'cifar_swin_t',
    functools.partial(swin, patch_size=2, depths=(2, 2, 6), heads=(3, 6, 12), window_size=4, stochastic_depth=0.2),
)

zoo.MODELS.add('swin_t', functools.partial(swin, depths=(2, 2, 6, 2), stochastic_depth=0.2))
zoo.MODELS.add('swin_s', functools.partial(swin, depths=(2, 2, 18, 2), stochastic_depth=0.3))
zoo.MODELS.add(
    'swin_b',
    functools.partial(swin, width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), stochastic_depth=0.5),
)

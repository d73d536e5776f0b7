"""Vision transformers: pre-norm blocks, learned positions, and a class token or the mean over positions.

Dosovitskiy et al., An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929. Models for ImageNet have torchvision's
names and a class token; the model for small images uses the mean over positions instead.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.core import checks, errors
from rfn_jax.models import hooks, layers, ranges, transformer, zoo

POOLS = ('mean', 'token')


class EncoderBlock(nn.Module):
    """Self-attention and a two-layer perceptron, each after a layer norm and with a skip connection.

    Attributes:
      heads: Number of attention heads.
      mlp_width: Hidden width of the perceptron.
      dropout: Probability of dropout after the attention and after each layer of the perceptron, in training.
      dtype: Type of the computation.
    """

    heads: int
    mlp_width: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps a sequence `[B, positions, width]` to another of that shape."""
        ln1, ln2 = (layers.layer_norm(epsilon=1e-6, dtype=self.dtype, name=name) for name in ('ln1', 'ln2'))
        attention = nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype, name='attention')
        drop = nn.Dropout(self.dropout, deterministic=not train, name='drop')
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        perceptron = transformer.perceptron(self.mlp_width, x.shape[-1], dense=dense, drop=drop)
        x = hooks.Residual(name='residual1')(x, lambda x: drop(attention(ln1(x))))
        return hooks.Residual(name='residual2')(x, lambda x: perceptron(ln2(x)))


class ViT(nn.Module):
    """A vision transformer; `__call__` returns logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      patch_size: Rows and columns of a patch; must divide those of the image.
      width: Width of the embedding.
      depth: Number of encoder blocks.
      heads: Number of attention heads; must divide `width`.
      mlp_width: Hidden width of the perceptrons.
      pool: What the logits are computed from: `'mean'`, the mean over positions, or `'token'`, a class token that precedes
        the patches.
      dropout: Probability of dropout after the positions are added and in the encoder blocks, in training.
      dtype: Type of the computation.
    """

    num_classes: int
    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    pool: str = 'mean'
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalized images `[B, H, W, C]` to logits `[B, num_classes]`."""
        p = self.patch_size
        if x.shape[1] % p or x.shape[2] % p:
            raise errors.InputError(f'patch_size {p} does not divide an image of {x.shape[1]} x {x.shape[2]} pixels')
        options = {'kernel_init': nn.initializers.lecun_normal(), 'dtype': self.dtype}
        x = transformer.patches(self.width, p, **options, name='patch_embedding')(x)
        x = x.reshape(x.shape[0], -1, self.width)
        if self.pool == 'token':
            token = self.param('class_token', nn.initializers.zeros, (1, 1, self.width)).astype(self.dtype)
            x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.width)), x], axis=1)
        x = x + self.param('positions', nn.initializers.normal(0.02), (1, *x.shape[1:])).astype(self.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train, name='drop')(x)
        for index in range(self.depth):
            block = EncoderBlock(self.heads, self.mlp_width, self.dropout, self.dtype, name=f'block{index}')
            x = block(x, train=train)
        x = layers.layer_norm(epsilon=1e-6, dtype=self.dtype, name='ln')(x)
        x = (x[:, 0] if self.pool == 'token' else jnp.mean(x, axis=1)).astype(jnp.float32)
        return layers.dense(self.num_classes, name='fc')(x)


@zoo.MODELS.register
def vit(
    num_classes: int,
    *,
    patch_size: int = 4,
    width: int = 192,
    depth: int = 6,
    heads: int = 3,
    mlp_width: int = 768,
    pool: str = 'mean',
    dropout: float = 0.0,
    dtype=jnp.float32,
) -> ViT:
    """A vision transformer of any size; for the arguments, see the attributes of `ViT`.

    Raises:
      InputError: `heads` does not divide `width`, a size is not positive, `dropout` is not in [0, 1), or `pool` is
        unknown.
    """
    options = {
        **ranges.check_sizes(patch_size=patch_size, width=width, depth=depth, heads=heads, mlp_width=mlp_width),
        'pool': checks.one_of('pool', pool, POOLS),
        **ranges.check_rates(dropout=dropout),
    }
    if width % heads:
        raise errors.InputError(f'heads {heads} must divide the width {width} of a ViT')
    return ViT(num_classes, **options, dtype=dtype)


# For 32x32 images: 64 patches, and 2.7 million parameters for 10 classes.
zoo.MODELS.add('cifar_vit', functools.partial(vit, patch_size=4, width=192, depth=6, heads=3, mlp_width=768))

_base = {'width': 768, 'depth': 12, 'heads': 12, 'mlp_width': 3072}
_large = {'width': 1024, 'depth': 24, 'heads': 16, 'mlp_width': 4096}
zoo.MODELS.add('vit_b_16', functools.partial(vit, patch_size=16, pool='token', **_base))
zoo.MODELS.add('vit_b_32', functools.partial(vit, patch_size=32, pool='token', **_base))
zoo.MODELS.add('vit_l_16', functools.partial(vit, patch_size=16, pool='token', **_large))

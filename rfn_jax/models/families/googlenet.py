"""GoogLeNet with batch normalization: blocks of parallel convolutions, and two auxiliary heads for training.

Szegedy et al., Going Deeper with Convolutions, https://arxiv.org/abs/1409.4842, as defined in torchvision: the third branch
has a 3x3 convolution where the paper has a 5x5 one. Parameters have the names of torchvision.
"""

import functools
import types
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.models import branches, hooks, layers, ranges, zoo

# Channels of a block: of the 1x1 branch, of the two convolutions of each 3x3 branch, and of the branch with max pooling.
BLOCKS = {
    'inception3a': (64, 96, 128, 16, 32, 32),
    'inception3b': (128, 128, 192, 32, 96, 64),
    'inception4a': (192, 96, 208, 16, 48, 64),
    'inception4b': (160, 112, 224, 24, 64, 64),
    'inception4c': (128, 128, 256, 24, 64, 64),
    'inception4d': (112, 144, 288, 32, 64, 64),
    'inception4e': (256, 160, 320, 32, 128, 128),
    'inception5a': (256, 160, 320, 32, 128, 128),
    'inception5b': (384, 192, 384, 48, 128, 128),
}
POOLS = {'inception3b': 3, 'inception4e': 2}  # size of the max pooling that follows a block
AUXILIARY_HEADS = {'inception4a': 'aux1', 'inception4d': 'aux2'}  # name of the auxiliary head that follows a block

# Max pooling that halves the image: torchvision's, whose last window need not be full, and the one for small images.
_ceil_max_pool = functools.partial(layers.max_pool, strides=2, ceil_mode=True)
_padded_max_pool = functools.partial(layers.max_pool, size=3, strides=2, padding=1)


def _branches(x: jax.Array, conv: Callable, *, widths: Sequence[int]) -> list[jax.Array]:
    """Computes four branches: 1x1; 1x1 and 3x3; 1x1 and 3x3 again; 3x3 max pooling and 1x1."""
    one, reduce2, three2, reduce3, three3, pooled = widths
    return [
        conv(x, 'branch1', (one, 1)),
        conv(conv(x, 'branch2_0', (reduce2, 1)), 'branch2_1', (three2, 3)),
        conv(conv(x, 'branch3_0', (reduce3, 1)), 'branch3_1', (three3, 3)),
        conv(layers.max_pool(x, 3, strides=1, padding=1), 'branch4_1', (pooled, 1)),
    ]


class AuxiliaryHead(nn.Module):
    """A classifier of features inside the network; in training, its float32 logits are recorded.

    Attributes:
      num_classes: Number of classes.
      dropout: Probability of dropout before the last layer, in training.
      convolutions: Makes and applies the convolution; the dense layers are initialized like it.
    """

    num_classes: int
    dropout: float
    convolutions: branches.Convolutions

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> None:
        """Sows the logits for features `[B, H, W, C]` of any size in `'auxiliary_logits'` if `train`."""
        conv = self.convolutions
        dense = functools.partial(layers.dense, kernel_init=nn.initializers.normal(conv.deviation))
        x = conv(layers.adaptive_avg_pool(x, 4), 'conv', 128, 1, train=train)
        x = dense(layers.scale_channels(1024, conv.width), dtype=conv.dtype, name='fc1')(layers.flatten(x))
        x = nn.Dropout(self.dropout, deterministic=not train, name='dropout')(hooks.Relu(name='relu')(x))
        logits = dense(self.num_classes, name='fc2')(x.astype(jnp.float32))
        if train:
            self.sow('auxiliary_logits', 'logits', logits)


class GoogLeNet(branches.InceptionNetwork):
    """GoogLeNet; `__call__` returns logits `[B, num_classes]` in float32.

    With the short stem, the max pooling between blocks is 3x3 with padding, as in the common PyTorch code for small images.

    Attributes:
      auxiliary_dropout: Probability of dropout before the last layer of the auxiliary heads, in training.
    """

    auxiliary_dropout: float = 0.7

    blocks = types.MappingProxyType({name: functools.partial(_branches, widths=w) for name, w in BLOCKS.items()})
    deviation = 0.01

    def stem(self, x: jax.Array, conv: Callable[..., jax.Array]) -> jax.Array:
        """Applies one convolution, or three that reduce rows and columns to an eighth."""
        ranges.check_image(x, 1 if self.short_stem else 15, 'GoogLeNet')
        if self.short_stem:
            return conv(x, 'conv1', 192, 3)
        x = conv(_ceil_max_pool(conv(x, 'conv1', 64, 7, 2), 3), 'conv2', 64, 1)
        return _ceil_max_pool(conv(x, 'conv3', 192, 3), 3)

    def apply_auxiliary_head(self, x: jax.Array, name: str, conv: branches.Convolutions, *, train: bool) -> None:
        """Applies an auxiliary head after the first and after the fourth block of the second stage."""
        if name in AUXILIARY_HEADS:
            AuxiliaryHead(self.num_classes, self.auxiliary_dropout, conv, name=AUXILIARY_HEADS[name])(x, train=train)

    def pool(self, x: jax.Array, name: str) -> jax.Array:
        """Applies max pooling after the last block of a stage."""
        if name not in POOLS:
            return x
        return _padded_max_pool(x) if self.short_stem else _ceil_max_pool(x, POOLS[name])


@zoo.MODELS.register
def googlenet(
    num_classes: int,
    *,
    short_stem: bool = False,
    auxiliary: bool = True,
    auxiliary_weight: float = 0.3,
    dropout: float = 0.2,
    auxiliary_dropout: float = 0.7,
    width: float = 1.0,
    dtype=jnp.float32,
) -> GoogLeNet:
    """GoogLeNet; for the arguments, see the attributes of `GoogLeNet`.

    Images need at least 15 x 15 pixels, or at least one pixel with the short stem. The published weights of torchvision
    expect a normalization with mean and standard deviation 0.5 in every channel: they turn on torchvision's option
    `transform_input`, which converts the usual normalization to this one.

    Raises:
      InputError: A number is out of range.
    """
    return GoogLeNet(
        num_classes,
        short_stem,
        auxiliary,
        **ranges.check_positive(width=width),
        **ranges.check_loss_weights(auxiliary_weight=auxiliary_weight),
        **ranges.check_rates(dropout=dropout, auxiliary_dropout=auxiliary_dropout),
        dtype=dtype,
    )


# As in https://github.com/huyvnphan/PyTorch_CIFAR10, an image shrinks by 4, not by 32.
zoo.MODELS.add('cifar_googlenet', functools.partial(googlenet, short_stem=True, auxiliary=False))

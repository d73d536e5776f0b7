"""ConvNeXt: a convolutional network with the proportions of a vision transformer.

Liu et al., A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545. Parameters are named as in torchvision, where
`features` contains the stem (0) and then, alternately, the blocks of a stage and the layers that halve the image before the
next stage.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.core import checks
from rfn_jax.models import hooks, layers, ranges, transformer, zoo

_init = layers.transformer_init
_layer_norm = functools.partial(layers.layer_norm, epsilon=1e-6)


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution and a two-layer perceptron applied at each position, with one skip connection.

    Attributes:
      kernel_size: Rows and columns of the depthwise kernel; odd.
      initial_scale: Initial value of the factors of the branch, which are parameters, one for each channel.
      stochastic_depth: Probability that the branch is dropped for an example, in training.
      dtype: Type of the computation.
    """

    kernel_size: int
    initial_scale: float
    stochastic_depth: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[B, H, W, C]` to features of the same shape."""
        channels = x.shape[-1]
        options = {'groups': channels, 'use_bias': True, 'kernel_init': _init, 'dtype': self.dtype}
        conv = layers.conv(channels, self.kernel_size, **options, name='conv')
        norm = _layer_norm(dtype=self.dtype, name='norm')
        dense = functools.partial(layers.transformer_dense, dtype=self.dtype)
        perceptron = transformer.perceptron(4 * channels, channels, dense=dense)
        scale = self.param('layer_scale', nn.initializers.constant(self.initial_scale), (channels, 1, 1))
        depth = layers.StochasticDepth(self.stochastic_depth, name='depth')

        def branch(x):
            y = perceptron(norm(conv(x)))
            return depth(y * scale[:, 0, 0].astype(self.dtype), train=train)

        return hooks.Residual(name='residual')(x, branch)


class ConvNeXt(nn.Module):
    """A ConvNeXt; `__call__` returns logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      patch_size: Rows and columns of the patches that the first convolution embeds.
      depths: Number of blocks in each stage; every stage after the first halves the image.
      widths: Channels of each stage.
      kernel_size: Rows and columns of the depthwise kernels; odd.
      layer_scale: Initial value of the factors of the residual branches.
      stochastic_depth: Probability that the branch of the last block is dropped for an example, in training; the
        probability grows linearly from 0 at the first block.
      dtype: Type of the computation; parameters and logits stay float32.
    """

    num_classes: int
    patch_size: int
    depths: Sequence[int]
    widths: Sequence[int]
    kernel_size: int
    layer_scale: float
    stochastic_depth: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalized images `[B, H, W, C]` to logits `[B, num_classes]`."""
        ranges.check_image(x, self.patch_size * 2 ** (len(self.depths) - 1), 'ConvNeXt')
        patches = functools.partial(transformer.patches, kernel_init=_init, dtype=self.dtype)
        x = patches(self.widths[0], self.patch_size, name='features_0_0')(x)
        x = _layer_norm(dtype=self.dtype, name='features_0_1')(x)
        for stage, blocks in enumerate(transformer.stages(self.depths, self.stochastic_depth)):
            if stage > 0:
                x = _layer_norm(dtype=self.dtype, name=f'features_{2 * stage}_0')(x)
                x = patches(self.widths[stage], 2, name=f'features_{2 * stage}_1')(x)
            for name, rate in blocks:
                block = ConvNeXtBlock(self.kernel_size, self.layer_scale, rate, self.dtype, name=name)
                x = block(x, train=train)
        x = layers.mean_over_positions(x)
        x = _layer_norm(dtype=self.dtype, name='classifier_0')(x).astype(jnp.float32)
        return layers.transformer_dense(self.num_classes, name='classifier_2')(x)


@zoo.MODELS.register
def convnext(
    num_classes: int,
    *,
    patch_size: int = 4,
    depths: Sequence[int] = (3, 3, 9, 3),
    widths: Sequence[int] = (96, 192, 384, 768),
    kernel_size: int = 7,
    layer_scale: float = 1e-6,
    stochastic_depth: float = 0.1,
    dtype=jnp.float32,
) -> ConvNeXt:
    """A ConvNeXt of any size; for the arguments, see the attributes of `ConvNeXt`.

    The image needs at least `patch_size * 2 ** (len(depths) - 1)` rows and columns.

    Raises:
      InputError: `depths` and `widths` differ in length, a size is not positive, `kernel_size` is even, or
        `stochastic_depth` is not in [0, 1).
    """
    return ConvNeXt(
        num_classes,
        **ranges.check_sizes(patch_size=patch_size),
        **ranges.check_stages(depths=depths, widths=widths),
        **ranges.check_odd(kernel_size=kernel_size),
        layer_scale=checks.number('layer_scale', layer_scale),
        **ranges.check_rates(stochastic_depth=stochastic_depth),
        dtype=dtype,
    )


# For 32x32 images: patches of 2x2, stages of 16, 8 and 4 rows, and 2.3 million parameters for 10 classes. Nine blocks train
# without the tiny layer scale of the deeper networks, which with SGD would hold back the gradients inside the branches.
zoo.MODELS.add(
    'cifar_convnext',
    functools.partial(convnext, patch_size=2, depths=(3, 3, 3), widths=(64, 128, 256), layer_scale=0.1),
)

_deep = (3, 3, 27, 3)
_base, _large = (128, 256, 512, 1024), (192, 384, 768, 1536)
zoo.MODELS.add('convnext_tiny', functools.partial(convnext, depths=(3, 3, 9, 3), stochastic_depth=0.1))
zoo.MODELS.add('convnext_small', functools.partial(convnext, depths=_deep, stochastic_depth=0.4))
zoo.MODELS.add('convnext_base', functools.partial(convnext, depths=_deep, widths=_base, stochastic_depth=0.5))
zoo.MODELS.add('convnext_large', functools.partial(convnext, depths=_deep, widths=_large, stochastic_depth=0.5))

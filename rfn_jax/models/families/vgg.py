"""VGG networks, with or without batch normalization, for small and large images.

Simonyan and Zisserman, Very Deep Convolutional Networks, https://arxiv.org/abs/1409.1556. `vgg11`, ..., `vgg19_bn` have the
paper's head of three dense layers, as in torchvision. `cifar_vgg11`, ... have the usual head for CIFAR: the mean over
positions and a single dense layer.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.core import errors
from rfn_jax.models import hooks, layers, ranges, zoo


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each stage followed by 2x2 max pooling; logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      stages: Channels of the convolutions, stage by stage.
      batch_norm: Whether a normalization follows each convolution.
      pool_size: Number of rows and columns that the features are averaged down to before the dense layers.
      hidden_widths: Widths of the dense layers before the last.
      dropout: Probability of dropout after each hidden layer, in training.
      dtype: Type of the computation; parameters, statistics and logits stay float32.
    """

    num_classes: int
    stages: Sequence[Sequence[int]]
    batch_norm: bool = True
    pool_size: int = 1
    hidden_widths: Sequence[int] = ()
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalized images `[B, H, W, C]` to logits `[B, num_classes]`."""
        ranges.check_image(x, 2 ** len(self.stages), 'VGG')
        for stage, widths in enumerate(self.stages, start=1):
            for index, width in enumerate(widths):
                name = f'{stage}_{index}'
                x = layers.conv(width, 3, use_bias=True, dtype=self.dtype, name=f'conv{name}')(x)
                if self.batch_norm:
                    x = layers.batch_norm(use_running_average=not train, dtype=self.dtype, name=f'bn{name}')(x)
                x = hooks.Relu(name=f'relu{name}')(x)
            x = layers.max_pool(x)
        if self.pool_size == 1:
            x = layers.mean_over_positions(x)
        else:
            x = layers.flatten(layers.adaptive_avg_pool(x, self.pool_size))
        kernel_init = nn.initializers.normal(0.01) if self.hidden_widths else layers.dense_init
        dense = functools.partial(layers.dense, kernel_init=kernel_init)
        for number, width in enumerate(self.hidden_widths, start=1):
            x = hooks.Relu(name=f'relu_fc{number}')(dense(width, dtype=self.dtype, name=f'fc{number}')(x))
            x = nn.Dropout(self.dropout, deterministic=not train, name=f'dropout{number}')(x)
        return dense(self.num_classes, name='fc')(x.astype(jnp.float32))


@zoo.MODELS.register
def vgg(
    num_classes: int,
    *,
    stages: Sequence[Sequence[int]],
    batch_norm: bool = True,
    pool_size: int = 1,
    hidden_widths: Sequence[int] = (),
    dropout: float | None = None,
    dtype=jnp.float32,
) -> VGG:
    """A VGG of any depth and width; for the arguments, see the attributes of `VGG`.

    The image needs at least `2 ** len(stages)` rows and columns. By default, `dropout` is 0.5 with `hidden_widths`, and 0
    without.

    Raises:
      InputError: A stage is empty, a size is not positive, `dropout` is not in [0, 1), or `dropout` is not 0 although there
        are no `hidden_widths`.
    """
    if dropout is None:
        dropout = 0.5 if hidden_widths else 0.0
    if not stages or not all(stages):
        raise errors.InputError(f'a VGG needs at least one stage, and each stage at least one width, got {stages!r}')
    names = [f'stages[{index}]' for index in range(len(stages))]
    options = {
        'stages': tuple(ranges.check_widths(**dict(zip(names, stages, strict=True))).values()),
        **ranges.check_sizes(pool_size=pool_size),
        **ranges.check_widths(hidden_widths=hidden_widths),
        **ranges.check_rates(dropout=dropout),
    }
    if dropout and not hidden_widths:
        raise errors.InputError(
            f'dropout {dropout} of a VGG applies to hidden layers, and without hidden_widths there are none'
        )
    return VGG(num_classes, **options, batch_norm=batch_norm, dtype=dtype)


for _depth, _counts in ((11, (1, 1, 2, 2, 2)), (13, (2, 2, 2, 2, 2)), (16, (2, 2, 3, 3, 3)), (19, (2, 2, 4, 4, 4))):
    _stages = tuple((width,) * count for width, count in zip((64, 128, 256, 512, 512), _counts, strict=True))
    _large = functools.partial(vgg, stages=_stages, pool_size=7, hidden_widths=(4096, 4096))
    zoo.MODELS.add(f'cifar_vgg{_depth}', functools.partial(vgg, stages=_stages))
    zoo.MODELS.add(f'vgg{_depth}', functools.partial(_large, batch_norm=False))
    zoo.MODELS.add(f'vgg{_depth}_bn', _large)

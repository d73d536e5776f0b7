"""MobileNetV3 of any width.

Howard et al., Searching for MobileNetV3, https://arxiv.org/abs/1905.02244. The blocks are the layers `features_1`,
`features_2`, ..., between the first and the last convolution.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.core import checks, errors
from rfn_jax.models import hooks, inverted_residual, layers, ranges, zoo

ACTIVATIONS = {'relu': hooks.Relu, 'hard_swish': hooks.HardSwish}


class Block(NamedTuple):
    """A row of the paper's tables.

    Attributes:
      kernel: Rows and columns of the depthwise convolution.
      expanded: Channels of the depthwise convolution.
      features: Output channels.
      squeeze: Whether there is squeeze-and-excitation.
      activation: `'relu'` or `'hard_swish'`.
      strides: Stride of the depthwise convolution.
    """

    kernel: int
    expanded: int
    features: int
    squeeze: bool
    activation: str
    strides: int


RELU, SWISH = 'relu', 'hard_swish'
SMALL = (
    Block(3, 16, 16, True, RELU, 2), Block(3, 72, 24, False, RELU, 2), Block(3, 88, 24, False, RELU, 1),
    Block(5, 96, 40, True, SWISH, 2), Block(5, 240, 40, True, SWISH, 1), Block(5, 240, 40, True, SWISH, 1),
    Block(5, 120, 48, True, SWISH, 1), Block(5, 144, 48, True, SWISH, 1), Block(5, 288, 96, True, SWISH, 2),
    Block(5, 576, 96, True, SWISH, 1), Block(5, 576, 96, True, SWISH, 1),
)  # fmt: skip
LARGE = (
    Block(3, 16, 16, False, RELU, 1), Block(3, 64, 24, False, RELU, 2), Block(3, 72, 24, False, RELU, 1),
    Block(5, 72, 40, True, RELU, 2), Block(5, 120, 40, True, RELU, 1), Block(5, 120, 40, True, RELU, 1),
    Block(3, 240, 80, False, SWISH, 2), Block(3, 200, 80, False, SWISH, 1), Block(3, 184, 80, False, SWISH, 1),
    Block(3, 184, 80, False, SWISH, 1), Block(3, 480, 112, True, SWISH, 1), Block(3, 672, 112, True, SWISH, 1),
    Block(5, 672, 160, True, SWISH, 2), Block(5, 960, 160, True, SWISH, 1), Block(5, 960, 160, True, SWISH, 1),
)  # fmt: skip


class MobileNetV3(inverted_residual.InvertedResidualNetwork):
    """Inverted residual blocks with squeeze-and-excitation; logits `[B, num_classes]` in float32.

    Attributes:
      blocks: The blocks.
      hidden_width: Width of the dense layer before the last.
    """

    blocks: Sequence[Block] = LARGE
    hidden_width: int = 1280

    activation = hooks.HardSwish
    norm = staticmethod(functools.partial(layers.batch_norm, momentum=0.99, epsilon=1e-3))

    def block_options(self) -> dict[str, dict[str, Any]]:
        """The attributes of the blocks, which are numbered."""
        options = {}
        for number, block in enumerate(self.blocks, start=1):
            squeeze = inverted_residual.round_channels(block.expanded // 4) if block.squeeze else 0
            gated = {'activation': ACTIVATIONS[block.activation], 'squeeze': squeeze, 'gate': nn.hard_sigmoid}
            options[f'features_{number}'] = {**block._asdict(), **gated}
        return options

    def head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps the last features to logits by two dense layers."""
        dense = functools.partial(layers.dense, kernel_init=self.classifier_init)
        x = dense(self.hidden_width, dtype=self.dtype, name='classifier_0')(layers.mean_over_positions(x))
        x = hooks.HardSwish(name='hard_swish')(x).astype(jnp.float32)
        x = nn.Dropout(self.dropout, deterministic=not train, name='dropout')(x)
        return dense(self.num_classes, name='classifier_3')(x)


@zoo.MODELS.register
def mobilenet_v3(
    num_classes: int,
    *,
    blocks: Sequence[Sequence[Any]],
    width_multiplier: float = 1.0,
    stem_strides: int = 2,
    dropout: float = 0.2,
    hidden_width: int,
    dtype=jnp.float32,
) -> MobileNetV3:
    """A MobileNetV3; an image needs at least one pixel. For arguments not listed here, see the attributes of `MobileNetV3`.

    Args:
      blocks: The entries of a `Block` for each block, with numbers of channels before scaling.
      hidden_width: Width of the dense layer before the last, before scaling.
      width_multiplier: Scales all channels, including the 16 of the first convolution, and `hidden_width`.

    Raises:
      InputError: A number is out of range, or an activation is unknown.
    """
    if not blocks:
        raise errors.InputError(f'a MobileNetV3 needs at least one block, got {blocks!r}')
    options = ranges.check_sizes(stem_strides=stem_strides) | ranges.check_rates(dropout=dropout)
    ranges.check_positive(width_multiplier=width_multiplier)
    ranges.check_sizes(hidden_width=hidden_width)
    scaled = tuple(_scaled(entries, width_multiplier) for entries in blocks)
    stem_width, hidden_width = (inverted_residual.round_channels(c * width_multiplier) for c in (16, hidden_width))
    options |= {'blocks': scaled, 'hidden_width': hidden_width, 'dtype': dtype}
    return MobileNetV3(num_classes, stem_width, 6 * scaled[-1].features, **options)


def _scaled(entries: Sequence[Any], width_multiplier: float) -> Block:
    if len(entries) != len(Block._fields):
        raise errors.InputError(f'a block of a MobileNetV3 needs {", ".join(Block._fields)}, got {entries!r}')
    block = Block(*entries)
    checks.one_of('activation', block.activation, ACTIVATIONS)
    widths = ranges.check_sizes(expanded=block.expanded, features=block.features)
    widths = {name: inverted_residual.round_channels(width * width_multiplier) for name, width in widths.items()}
    others = ranges.check_odd(kernel=block.kernel) | ranges.check_sizes(strides=block.strides)
    return block._replace(**widths, **others)


zoo.MODELS.add('mobilenet_v3_small', functools.partial(mobilenet_v3, blocks=SMALL, hidden_width=1024))
zoo.MODELS.add('mobilenet_v3_large', functools.partial(mobilenet_v3, blocks=LARGE, hidden_width=1280))

# As in `cifar_mobilenet_v2`, the first two strides of 2 become 1, so an image shrinks by 8, not by 32. The first block of the
# small network then keeps the shape, and therefore has a residual sum.
_small = (SMALL[0]._replace(strides=1), *SMALL[1:])
_large = (LARGE[0], LARGE[1]._replace(strides=1), *LARGE[2:])
for _size, _blocks, _hidden in (('small', _small, 1024), ('large', _large, 1280)):
    zoo.MODELS.add(
        f'cifar_mobilenet_v3_{_size}',
        functools.partial(mobilenet_v3, blocks=_blocks, hidden_width=_hidden, stem_strides=1),
    )

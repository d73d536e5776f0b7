"""What residual networks and pre-activation ones share: the structure of their blocks and stages, without any layers."""

from collections.abc import Iterator, Sequence
from typing import Any

from rfn_jax.core import checks, errors
from rfn_jax.models import ranges

BLOCKS = ('basic', 'bottleneck')


def convolutions(block: str, width: int, strides: int, inner: int | None = None) -> list[tuple[int, int, int]]:
    """The output channels, kernel and stride of each convolution of a block.

    Args:
      block: `'basic'`, two 3x3 convolutions, or `'bottleneck'`, 1x1, 3x3 and 1x1 with four times the width at the end.
      width: Channels of the stage.
      strides: Stride of the first 3x3 convolution.
      inner: Channels of the 3x3 convolution of a bottleneck; `width` by default.
    """
    if block == 'basic':
        return [(width, 3, strides), (width, 3, 1)]
    inner = width if inner is None else inner
    return [(inner, 1, 1), (inner, 3, strides), (4 * width, 1, 1)]


def stages(stage_sizes: Sequence[int], widths: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Yields the name, width and stride of each block; every stage after the first begins with a stride of 2."""
    for stage, (size, width) in enumerate(zip(stage_sizes, widths, strict=True), start=1):
        for index in range(size):
            yield f'layer{stage}_{index}', width, 2 if stage > 1 and index == 0 else 1


def check_stages(stage_sizes: Sequence[int], widths: Sequence[int], block: str) -> dict[str, Any]:
    """Checks the stages of a network and the kind of its blocks, and returns them by name.

    Raises:
      InputError: `stage_sizes` and `widths` differ in length, an integer is below 1, or `block` is unknown.
    """
    sizes = ranges.check_stages(stage_sizes=stage_sizes, widths=widths)
    return {**sizes, 'block': checks.one_of('residual block', block, BLOCKS)}


def three_stage_sizes(network: str, depth: int, extra: int) -> tuple[int, int, int]:
    """The number n of basic blocks in each of the three stages of a network of depth 6n + `extra`.

    Raises:
      InputError: `depth` is not of this form with n of at least 1.
    """
    blocks, rest = divmod(checks.integer('depth', depth) - extra, 6)
    if blocks < 1 or rest:
        examples = ', '.join(str(6 * n + extra) for n in range(1, 6))
        raise errors.InputError(f'depth of a {network} must be 6n + {extra} ({examples}, ...), got {depth}')
    return (blocks,) * 3

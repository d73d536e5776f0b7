"""Block shuffle and rotation: the blocks of an image in a different order, each rotated a little.

Axes: `B` examples, `H W` rows and columns, `C` channels, `N` strips per image and blocks per strip.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rfn_jax.attacks.inputs import transforms
from rfn_jax.core import checks, errors, numerics


class Arrangement(NamedTuple):
    """How an image is cut, shuffled and rotated; strips and blocks are numbered in the order of the original.

    Attributes:
      upright: Whether the strips are vertical (whole columns) instead of horizontal (whole rows); bool.
      lengths: Pixels across each strip, int32 `[N]`; a strip may be empty.
      order: The strips in their new order, int32 `[N]`.
      block_lengths: Pixels along each block of each strip, int32 `[N, N]`.
      block_orders: The blocks of each strip in their new order, int32 `[N, N]`.
      angles: Rotation angle of each block of each strip in radians, `[N, N]`.
    """

    upright: jax.Array
    lengths: jax.Array
    order: jax.Array
    block_lengths: jax.Array
    block_orders: jax.Array
    angles: jax.Array


def block_shuffle_rotate(copies: int = 20, blocks: int = 3, max_angle: float = 24.0) -> transforms.InputTransform:
    r"""Block shuffle and rotation (BSR): the image is cut into blocks, which are shuffled and rotated.

    The image is cut into `blocks` strips, either of rows or of columns, and each strip into `blocks` blocks. The lengths are
    random shares, proportional to draws from U(1, 2), drawn separately for each strip. The strips are shuffled, and so are
    the blocks within each strip. Each block is rotated about its center by its own angle,

    .. math:: \beta \sim U(-\tau, \tau),

    with bilinear interpolation; pixels that the rotated block does not cover are 0. Cuts and order are as in the authors'
    code in TransferAttack, which rotates a whole strip by one angle and uses the same draws for all images of a batch. Here,
    as in the paper, each block has its own angle, and each example has its own draws.

    Args:
      copies: Number of copies, each with its own draws, at least 1. 20 as in TransferAttack and torchattack.
      blocks: Number of strips per image and of blocks per strip, at least 1. 3 as in TransferAttack and torchattack.
      max_angle: :math:`\tau` in degrees, in [0, 180]. 24 as in TransferAttack.

    Returns:
      An input transform with `copies` copies. It raises InputError for images with fewer rows or columns than blocks.

    Raises:
      InputError: `copies`, `blocks` or `max_angle` is out of range.

    References:
      Wang et al., `Boosting Adversarial Transferability by Block Shuffle and Rotation
      <https://arxiv.org/abs/2308.10299>`_, 2024.
    """
    copies = checks.integer('copies', copies, at_least=1)
    blocks = checks.integer('blocks', blocks, at_least=1)
    checks.number('max_angle', max_angle, at_least=0, at_most=180)

    def apply(inputs: transforms.Input) -> jax.Array:
        height, width = inputs.images.shape[1:3]
        if blocks > min(height, width):
            raise errors.InputError(f'images of {height} x {width} pixels cannot be cut into {blocks} strips')

        def rearrange_one(image: jax.Array, key: jax.Array) -> jax.Array:
            return rearrange(image, draw_arrangement(key, height, width, blocks, max_angle))

        return jax.vmap(rearrange_one)(inputs.images, inputs.keys)

    return transforms.InputTransform('block_shuffle_rotate', apply, copies)


def draw_arrangement(key: jax.Array, height: int, width: int, blocks: int, max_angle: float) -> Arrangement:
    """Draws how an image of `height` rows and `width` columns is cut into `blocks` strips, shuffled and rotated.

    Args:
      key: A scalar key.
      height: H.
      width: W.
      blocks: N.
      max_angle: Largest angle in degrees.

    Returns:
      The arrangement.
    """
    side_key, cut_key, order_key, angle_key = jax.random.split(key, 4)
    upright = jax.random.bernoulli(side_key)
    across, along = jnp.where(upright, width, height), jnp.where(upright, height, width)
    # Row 0 is for the strips, row 1 + n for the blocks of strip n.
    shares = jnp.cumsum(jax.random.uniform(cut_key, (1 + blocks, blocks), minval=1.0, maxval=2.0), axis=1)
    shares = shares / shares[:, -1:]
    orders = jnp.argsort(jax.random.uniform(order_key, (1 + blocks, blocks)), axis=1)

    def lengths(share: jax.Array, total: jax.Array) -> jax.Array:
        cuts = jnp.round(share * total).astype(jnp.int32)
        return jnp.diff(cuts, axis=-1, prepend=jnp.zeros_like(cuts[..., :1]))

    return Arrangement(
        upright=upright,
        lengths=lengths(shares[0], across),
        order=orders[0],
        block_lengths=lengths(shares[1:], along),
        block_orders=orders[1:],
        angles=jnp.radians(jax.random.uniform(angle_key, (blocks, blocks), minval=-max_angle, maxval=max_angle)),
    )


class _Sources(NamedTuple):
    """Where the pixels of a line `[S]` of shuffled parts come from: the part, the offset in it, its start and its length."""

    part: jax.Array
    offset: jax.Array
    start: jax.Array
    length: jax.Array


def _trace_line(lengths: jax.Array, order: jax.Array, size: int) -> _Sources:
    ends = jnp.cumsum(lengths[order])
    pixels = jnp.arange(size)
    position = jnp.minimum(jnp.sum(pixels[:, None] >= ends, axis=1), len(ends) - 1)
    part = order[position]
    starts = jnp.cumsum(lengths) - lengths
    return _Sources(part, pixels - (ends[position] - lengths[part]), starts[part], lengths[part])


def rearrange(image: jax.Array, arrangement: Arrangement) -> jax.Array:
    """Cuts, shuffles and rotates an image `[H, W, C]` according to an arrangement; each pixel is one bilinear sample.

    The pixel at (u, v) relative to the center of its block, with u across the strips and v along them, is sampled at
    (u cos - v sin, u sin + v cos), where pixels outside the block count as 0.
    """
    height, width, _ = image.shape
    size = max(height, width)
    outer = _trace_line(arrangement.lengths, arrangement.order, size)
    inner = jax.vmap(lambda lengths, order: _trace_line(lengths, order, size))(
        arrangement.block_lengths, arrangement.block_orders
    )
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing='ij')
    across, along = jnp.where(arrangement.upright, x, y), jnp.where(arrangement.upright, y, x)
    strip = outer.part[across]
    outer = _Sources(*(field[across] for field in outer))
    inner = _Sources(*(field[strip, along] for field in inner))

    angle = arrangement.angles[strip, inner.part]
    center_u, center_v = (outer.length - 1) / 2, (inner.length - 1) / 2
    u, v = outer.offset - center_u, inner.offset - center_v
    source_u = u * jnp.cos(angle) - v * jnp.sin(angle) + center_u
    source_v = u * jnp.sin(angle) + v * jnp.cos(angle) + center_v

    compute_type = numerics.wide_dtype(image.dtype)
    result = jnp.zeros(image.shape, compute_type)
    for corner_u in (jnp.floor(source_u), jnp.floor(source_u) + 1):
        for corner_v in (jnp.floor(source_v), jnp.floor(source_v) + 1):
            weight = (1 - jnp.abs(source_u - corner_u)) * (1 - jnp.abs(source_v - corner_v))
            inside = (corner_u >= 0) & (corner_u < outer.length) & (corner_v >= 0) & (corner_v < inner.length)
            row = outer.start + jnp.clip(corner_u.astype(jnp.int32), 0, outer.length - 1)
            column = inner.start + jnp.clip(corner_v.astype(jnp.int32), 0, inner.length - 1)
            pixel = image[
                jnp.where(arrangement.upright, column, row), jnp.where(arrangement.upright, row, column)
            ].astype(compute_type)
            result += jnp.where(inside, weight, 0.0)[..., None].astype(compute_type) * pixel
    return result.astype(image.dtype)

"""Block shuffle and rotation: the parts of an image in another order, each turned a little.

Axes: `B` examples, `H W` rows and columns, `C` channels, `N` strips of an image and blocks of a strip.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rfn_jax.attacks.inputs import transforms
from rfn_jax.core import checks, errors


class Arrangement(NamedTuple):
    """How one image is cut, shuffled and turned; strips and blocks are numbered as they lie in the original.

    Attributes:
      upright: Whether the strips are upright (of whole columns), and not flat (of whole rows); bool.
      lengths: Pixels across each strip, int32 `[N]`; a strip may be empty.
      order: The strips in their new order, int32 `[N]`.
      block_lengths: Pixels along each block of each strip, int32 `[N, N]`.
      block_orders: The blocks of each strip in their new order, int32 `[N, N]`.
      angles: Angle of each block of each strip in radians, `[N, N]`.
    """

    upright: jax.Array
    lengths: jax.Array
    order: jax.Array
    block_lengths: jax.Array
    block_orders: jax.Array
    angles: jax.Array


def block_shuffle_rotate(copies: int = 20, blocks: int = 3, max_angle: float = 24.0) -> transforms.InputTransform:
    r"""Block shuffle and rotation (BSR): the image is cut into blocks, which change places and are turned.

    The image is cut into `blocks` strips, either rows or columns, and each strip into `blocks` blocks; cuts are random
    shares of the length, in proportion to U(1, 2), for each strip anew. Strips change places, and blocks inside their
    strips. Each block is turned about its center by an angle of its own,

    .. math:: \beta \sim U(-\tau, \tau),

    with bilinear interpolation and 0 where nothing of the block comes to lie. Cuts and order are those of the authors'
    code in TransferAttack; there a whole strip is turned by one angle, and all images of a batch are treated alike. Here,
    as in the paper, each block has its angle, and each example draws of its own.

    Args:
      copies: Number of copies with draws of their own, at least 1. 20 as in TransferAttack and torchattack.
      blocks: Number of strips, and of blocks in a strip, at least 1. 3 as in TransferAttack and torchattack.
      max_angle: :math:`\tau` in degrees, in [0, 180]. 24 as in TransferAttack.

    Returns:
      An input transform of `copies` copies. Applied to images with fewer rows or columns than blocks, it raises InputError.

    Raises:
      InputError: `copies`, `blocks` or `max_angle` is out of its range.

    References:
      Wang et al., `Boosting Adversarial Transferability by Block Shuffle and Rotation
      <https://arxiv.org/abs/2308.10299>`_, 2024.
    """
    copies = checks.integer('copies', copies, at_least=1)
    blocks = checks.integer('blocks', blocks, at_least=1)
    checks.number('max_angle', max_angle, at_least=0, at_most=180)

    def apply(given: transforms.Input) -> jax.Array:
        height, width = given.images.shape[1:3]
        if blocks > min(height, width):
            raise errors.InputError(f'images of {height} x {width} pixels cannot be cut into {blocks} strips')

        def one(image: jax.Array, key: jax.Array) -> jax.Array:
            return rearrange(image, draw_arrangement(key, height, width, blocks, max_angle))

        return jax.vmap(one)(given.images, given.keys)

    return transforms.InputTransform('block_shuffle_rotate', apply, copies)


def draw_arrangement(key: jax.Array, height: int, width: int, blocks: int, max_angle: float) -> Arrangement:
    """Draws how an image of `height` rows and `width` columns is cut into `blocks` strips, shuffled and turned.

    Args:
      key: One key.
      height: H.
      width: W.
      blocks: N.
      max_angle: Largest angle in degrees.

    Returns:
      The draws.
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


class _Line(NamedTuple):
    """Where the pixels of a line `[S]` of shuffled parts come from: part, place inside, start and length of the part."""

    part: jax.Array
    inside: jax.Array
    start: jax.Array
    length: jax.Array


def _line(lengths: jax.Array, order: jax.Array, size: int) -> _Line:
    ends = jnp.cumsum(lengths[order])
    pixels = jnp.arange(size)
    place = jnp.minimum(jnp.sum(pixels[:, None] >= ends, axis=1), len(ends) - 1)
    part = order[place]
    starts = jnp.cumsum(lengths) - lengths
    return _Line(part, pixels - (ends[place] - lengths[part]), starts[part], lengths[part])


def rearrange(image: jax.Array, arrangement: Arrangement) -> jax.Array:
    """An image `[H, W, C]` cut, shuffled and turned as an `Arrangement` says; each pixel is one bilinear sample.

    The sample of a pixel at (u, v) from the center of its block, u across the strips and v along them, is taken at
    (u cos - v sin, u sin + v cos); pixels outside the block count as 0.
    """
    height, width, _ = image.shape
    size = max(height, width)
    outer = _line(arrangement.lengths, arrangement.order, size)
    inner = jax.vmap(lambda lengths, order: _line(lengths, order, size))(
        arrangement.block_lengths, arrangement.block_orders
    )
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing='ij')
    across, along = jnp.where(arrangement.upright, x, y), jnp.where(arrangement.upright, y, x)
    strip = outer.part[across]
    outer = _Line(*(field[across] for field in outer))
    inner = _Line(*(field[strip, along] for field in inner))

    angle = arrangement.angles[strip, inner.part]
    center_u, center_v = (outer.length - 1) / 2, (inner.length - 1) / 2
    u, v = outer.inside - center_u, inner.inside - center_v
    source_u = u * jnp.cos(angle) - v * jnp.sin(angle) + center_u
    source_v = u * jnp.sin(angle) + v * jnp.cos(angle) + center_v

    compute_type = jnp.promote_types(image.dtype, jnp.float32)
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

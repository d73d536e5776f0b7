"""Input diversity: images resized to a random size and padded at a random place.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import functools
import math

import jax
import jax.numpy as jnp

from rfn_jax.attacks.inputs import transforms
from rfn_jax.core import checks, errors

METHODS = ('bilinear', 'nearest')


def input_diversity(
    rate: float = 1.1, probability: float = 0.5, *, method: str = 'bilinear'
) -> transforms.InputTransform:
    r"""Input diversity (DI): with a probability, each image is resized to a random size and padded to a canvas.

    .. math::
        T(x) = \begin{cases} pad(resize(x, r)) & \text{with probability } p \\ x & \text{otherwise} \end{cases}

    With `rate` above 1 the canvas has :math:`\lfloor rate \cdot H \rfloor` rows, `r` is drawn uniformly from H up to, but
    not including, that, and the canvas is resized back to H rows, since the surrogate takes images of one size; this is
    TransferAttack. The paper, which goes from 299 rows to between 299 and 329 on a canvas of 330 (`rate=330 / 299`), has a
    network for the canvas and does not resize back. With `rate` below 1 the canvas has the size of the image and `r` is
    drawn from :math:`\lfloor rate \cdot H \rfloor` up to, but not including, H; this is torchattacks and LGV. Columns
    likewise, by the same draw, so that square images stay square; the place on the canvas is drawn for each axis.

    Pixels are interpolated as `torch.nn.functional.interpolate` does it (`align_corners=False`, no antialiasing), and the
    padding is 0. Every example has draws of its own; the peers draw once for a batch.

    Args:
      rate: Canvas over image if above 1, smallest size over image if below 1; above 0 and not 1. 1.1 is the default of
        TransferAttack, 0.9 that of torchattacks.
      probability: :math:`p`, how often an image is transformed at all, in [0, 1]. 0.5 is the default of both peers and of
        the paper.
      method: `'bilinear'`, or `'nearest'` as in the code of the paper's authors.

    Returns:
      An input transform of one copy. Applied to images so small that there is no size between the two ends, it raises
      InputError.

    Raises:
      InputError: `rate` or `probability` is out of its range, or `method` is unknown.

    References:
      Xie et al., `Improving Transferability of Adversarial Examples with Input Diversity
      <https://arxiv.org/abs/1803.06978>`_, 2019.
    """
    if checks.number('rate', rate, above=0) == 1:
        raise errors.InputError(f'rate must be above or below 1, got {rate!r}')
    checks.number('probability', probability, at_least=0, at_most=1)
    checks.one_of('method', method, METHODS)

    def apply(given: transforms.Input) -> jax.Array:
        height, width = given.images.shape[1:3]
        smallest, canvas = size_range((height, width), rate)

        def one(image: jax.Array, key: jax.Array) -> jax.Array:
            chosen, *draws = jax.random.uniform(key, (4,))
            size = jnp.stack([_pick(draws[0], a, b) for a, b in zip(smallest, canvas, strict=True)])
            offset = jnp.stack([_pick(u, 0, b - r) for u, b, r in zip(draws[1:], canvas, size, strict=True)])
            resized = resize_and_pad(image, size, offset, canvas=canvas, method=method)
            return jnp.where(chosen < probability, resized, image)

        return jax.vmap(one)(given.images, given.keys)

    return transforms.InputTransform('input_diversity', apply)


def size_range(shape: tuple[int, int], rate: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """The smallest size that `input_diversity` draws, and its canvas, which is above all of them: rows and columns.

    Raises:
      InputError: Images of this shape are too small for the rate.
    """
    height, width = (math.floor(length * rate + 1e-9) for length in shape)  # 100 * 1.15 is a little below 115
    scaled = height, width
    smallest, canvas = (shape, scaled) if rate > 1 else (scaled, shape)
    if min(smallest) < 1 or any(a >= b for a, b in zip(smallest, canvas, strict=True)):
        allowed = f'at least {1 + 1 / min(shape):.4g}' if rate > 1 else f'in [{1 / min(shape):.4g}, 1)'
        raise errors.InputError(
            f'rate {rate:g} leaves no size to draw for images of {shape[0]} x {shape[1]} pixels: use a rate {allowed}'
        )
    return smallest, canvas


def _pick(uniform: jax.Array, low: jax.Array | int, high: jax.Array | int) -> jax.Array:
    """An integer in `[low, high)` from a draw in [0, 1)."""
    return low + jnp.floor(uniform * (high - low)).astype(jnp.int32)


def resize_and_pad(
    image: jax.Array, size: jax.Array, offset: jax.Array, *, canvas: tuple[int, int], method: str
) -> jax.Array:
    """An image resized to `size`, put on a canvas of zeros at `offset`, and the canvas resized to the size of the image.

    Args:
      image: `[H, W, C]`.
      size: Rows and columns of the resized image, int32 `[2]`, at least 1 and at most `canvas`; may be traced.
      offset: First row and column on the canvas, int32 `[2]`, in `[0, canvas - size]`; may be traced.
      canvas: Rows and columns of the canvas.
      method: `'bilinear'` or `'nearest'`.

    Returns:
      `[H, W, C]`, of the type of `image`.
    """
    multiply = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    matrices = []
    for axis in (0, 1):
        length = image.shape[axis]
        forth = interpolation_matrix(length, size[axis], offset[axis], canvas[axis], method)
        back = interpolation_matrix(canvas[axis], length, 0, length, method)
        matrices.append(multiply('ij,jk->ik', back, forth))
    compute_type = jnp.promote_types(image.dtype, jnp.float32)
    return multiply('ih,hwc,jw->ijc', matrices[0], image.astype(compute_type), matrices[1]).astype(image.dtype)


def interpolation_matrix(
    length: int, size: jax.typing.ArrayLike, offset: jax.typing.ArrayLike, canvas: int, method: str
) -> jax.Array:
    """The matrix `[canvas, length]` that resizes a line of `length` pixels to `size`, with zeros around it.

    Pixel i of the resized line lies at (i + 1/2) length / size - 1/2 of the line for `'bilinear'`, and is pixel
    floor(i length / size) of it for `'nearest'`; computed in integers, so the floor is exact.
    """
    i = (jnp.arange(canvas) - offset)[:, None]
    columns = jnp.arange(length)
    if method == 'nearest':
        weights = (columns == i * length // size).astype(jnp.float32)
    else:
        place = jnp.maximum((2 * i + 1) * length - size, 0)  # in units of 1 / (2 size)
        left = place // (2 * size)
        share = (place % (2 * size)) / (2 * size)
        weights = (columns == left) * (1 - share) + (columns == jnp.minimum(left + 1, length - 1)) * share
    return jnp.where((i >= 0) & (i < size), weights, 0.0)

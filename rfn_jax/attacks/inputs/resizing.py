"""Input diversity: images resized to a random size and padded at a random position.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import functools
import math

import jax
import jax.numpy as jnp

from rfn_jax.attacks.inputs import transforms
from rfn_jax.core import checks, errors, numerics

METHODS = ('bilinear', 'nearest')


def input_diversity(
    rate: float = 1.1, probability: float = 0.5, *, method: str = 'bilinear'
) -> transforms.InputTransform:
    r"""Input diversity (DI): with some probability, each image is resized to a random size and padded to a canvas.

    .. math::
        T(x) = \begin{cases} pad(resize(x, r)) & \text{with probability } p \\ x & \text{otherwise} \end{cases}

    If `rate` is above 1, the canvas has :math:`\lfloor rate \cdot H \rfloor` rows, `r` is drawn uniformly from H up to that
    number (exclusive), and the canvas is resized back to H rows, since the surrogate takes images of one size; this is what
    TransferAttack does. The paper resizes 299 rows to between 299 and 329 on a canvas of 330 (`rate=330 / 299`), and uses a
    network that takes the canvas, so it does not resize back. If `rate` is below 1, the canvas has the size of the image and
    `r` is drawn from :math:`\lfloor rate \cdot H \rfloor` up to H (exclusive); this is what torchattacks and LGV do. The
    number of columns follows from the same draw, so that square images stay square; the position on the canvas is drawn
    separately for each axis.

    Pixels are interpolated as in `torch.nn.functional.interpolate` (`align_corners=False`, no antialiasing), and the padding
    is 0. Each example has its own draws, whereas the other libraries draw once per batch.

    Args:
      rate: Size of the canvas relative to the image if above 1, smallest size relative to the image if below 1; above 0 and
        not 1. The default of TransferAttack is 1.1, that of torchattacks is 0.9.
      probability: :math:`p`, how often an image is transformed at all, in [0, 1]. 0.5 is the default of both libraries and
        of the paper.
      method: `'bilinear'`, or `'nearest'` as in the code of the paper's authors.

    Returns:
      An input transform with one copy. It raises InputError for images so small that the range of sizes is empty.

    Raises:
      InputError: `rate` or `probability` is out of range, or `method` is unknown.

    References:
      Xie et al., `Improving Transferability of Adversarial Examples with Input Diversity
      <https://arxiv.org/abs/1803.06978>`_, 2019.
    """
    if checks.number('rate', rate, above=0) == 1:
        raise errors.InputError(f'rate must be above or below 1, got {rate!r}')
    checks.number('probability', probability, at_least=0, at_most=1)
    checks.one_of('method', method, METHODS)

    def apply(inputs: transforms.Input) -> jax.Array:
        height, width = inputs.images.shape[1:3]
        smallest, canvas = size_range((height, width), rate)

        def transform_one(image: jax.Array, key: jax.Array) -> jax.Array:
            coin, *draws = jax.random.uniform(key, (4,))
            size = jnp.stack([_pick(draws[0], a, b) for a, b in zip(smallest, canvas, strict=True)])
            offset = jnp.stack([_pick(u, 0, b - r) for u, b, r in zip(draws[1:], canvas, size, strict=True)])
            resized = resize_and_pad(image, size, offset, canvas=canvas, method=method)
            return jnp.where(coin < probability, resized, image)

        return jax.vmap(transform_one)(inputs.images, inputs.keys)

    return transforms.InputTransform('input_diversity', apply)


def size_range(shape: tuple[int, int], rate: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """The smallest size that `input_diversity` draws and its canvas, which is larger than every size: rows and columns.

    Raises:
      InputError: Images of this shape are too small for the rate.
    """
    height, width = (math.floor(length * rate + 1e-9) for length in shape)  # 100 * 1.15 is slightly below 115
    scaled = height, width
    smallest, canvas = (shape, scaled) if rate > 1 else (scaled, shape)
    if min(smallest) < 1 or any(a >= b for a, b in zip(smallest, canvas, strict=True)):
        allowed = f'of at least {1 + 1 / min(shape):.4g}' if rate > 1 else f'in [{1 / min(shape):.4g}, 1)'
        raise errors.InputError(
            f'rate {rate:g} leaves no size to draw for images of {shape[0]} x {shape[1]} pixels: use a rate {allowed}'
        )
    return smallest, canvas


def _pick(uniform: jax.Array, low: jax.Array | int, high: jax.Array | int) -> jax.Array:
    """Turns a draw from [0, 1) into an integer in `[low, high)`."""
    return low + jnp.floor(uniform * (high - low)).astype(jnp.int32)


def resize_and_pad(
    image: jax.Array, size: jax.Array, offset: jax.Array, *, canvas: tuple[int, int], method: str
) -> jax.Array:
    """Resizes an image to `size`, puts it on a canvas of zeros at `offset`, and resizes the canvas to the size of the image.

    Args:
      image: `[H, W, C]`.
      size: Rows and columns of the resized image, int32 `[2]`, at least 1 and at most `canvas`; may be traced.
      offset: First row and column on the canvas, int32 `[2]`, in `[0, canvas - size]`; may be traced.
      canvas: Rows and columns of the canvas.
      method: `'bilinear'` or `'nearest'`.

    Returns:
      `[H, W, C]`, of the same dtype as `image`.
    """
    multiply = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    matrices = []
    for axis in (0, 1):
        length = image.shape[axis]
        resize_matrix = interpolation_matrix(length, size[axis], offset[axis], canvas[axis], method)
        resize_back_matrix = interpolation_matrix(canvas[axis], length, 0, length, method)
        matrices.append(multiply('ij,jk->ik', resize_back_matrix, resize_matrix))
    compute_type = numerics.wide_dtype(image.dtype)
    return multiply('ih,hwc,jw->ijc', matrices[0], image.astype(compute_type), matrices[1]).astype(image.dtype)


def interpolation_matrix(
    length: int, size: jax.typing.ArrayLike, offset: jax.typing.ArrayLike, canvas: int, method: str
) -> jax.Array:
    """Returns the matrix `[canvas, length]` that resizes a line of `length` pixels to `size` and pads it with zeros.

    For `'bilinear'`, pixel i of the resized line lies at (i + 1/2) length / size - 1/2 of the original line; for `'nearest'`,
    it is pixel floor(i length / size) of it, computed in integers, so that the floor is exact.
    """
    i = (jnp.arange(canvas) - offset)[:, None]
    columns = jnp.arange(length)
    if method == 'nearest':
        weights = (columns == i * length // size).astype(jnp.float32)
    else:
        position = jnp.maximum((2 * i + 1) * length - size, 0)  # in units of 1 / (2 size)
        left = position // (2 * size)
        share = (position % (2 * size)) / (2 * size)
        weights = (columns == left) * (1 - share) + (columns == jnp.minimum(left + 1, length - 1)) * share
    return jnp.where((i >= 0) & (i < size), weights, 0.0)

"""Translation invariance by a kernel: the gradient is convolved, instead of using many shifted images.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rfn_jax.core import checks, errors, numerics

KINDS = ('gaussian', 'linear', 'uniform')


def translation_kernel(size: int = 15, nsig: float = 3.0, *, kind: str = 'gaussian') -> optax.GradientTransformation:
    r"""Translation invariance (TI): the gradient convolved with a kernel, channel by channel.

    .. math:: g \leftarrow W * g, \qquad W = w w^T / \textstyle\sum_{ij} (w w^T)_{ij}

    .. math::
        w_i = \begin{cases}
          \exp(-(i \, nsig / k)^2 / 2) & gaussian \\ 1 - |i| / (k + 1) & linear \\ 1 & uniform
        \end{cases}
        \qquad i = -k, ..., k, \quad size = 2 k + 1

    Outside the image, the gradient is taken to be 0. The kernel is applied to the gradient before the momentum, as in the
    paper: `optax.chain(translation_kernel(), accumulate(), steepest('linf'))`.

    Args:
      size: Rows and columns of the kernel in pixels, odd, at least 1. 15 as in the paper; targeted attacks use 5.
      nsig: For `'gaussian'`: number of standard deviations from the center to the edge, above 0. 3 is the value in the
        authors' code, TransferAttack and torchattacks; for 15 pixels, it gives a standard deviation of 7/3 pixels.
      kind: `'gaussian'`, `'linear'` or `'uniform'`. The linear kernel is that of the paper and of torchattacks, not the
        nearly flat one of TransferAttack.

    Returns:
      A stateless optax transformation of arrays `[B, H, W, C]`. It raises InputError for gradients smaller than the kernel.

    Raises:
      InputError: `size` or `nsig` is out of range, or `kind` is unknown.

    References:
      Dong et al., `Evading Defenses to Transferable Adversarial Examples by Translation-Invariant Attacks
      <https://arxiv.org/abs/1904.02884>`_, 2019.
    """
    profile = kernel_profile(size, nsig=nsig, kind=kind)

    def update(gradient: jax.Array, _: optax.Params) -> jax.Array:
        height, width = gradient.shape[1:3]
        if size > min(height, width):
            raise errors.InputError(
                f'a translation kernel of {size} pixels is larger than the images of {height} x {width} pixels: use an '
                f'odd size of at most {min(height, width)}'
            )
        # The kernel is an outer product, so one band matrix per axis applies it.
        rows, columns = (sum(w * np.eye(n, k=i - size // 2) for i, w in enumerate(profile)) for n in (height, width))
        compute_type = numerics.wide_dtype(gradient.dtype)
        convolved = jnp.einsum(
            'ih,bhwc,jw->bijc',
            jnp.asarray(rows, compute_type),
            gradient.astype(compute_type),
            jnp.asarray(columns, compute_type),
            precision=jax.lax.Precision.HIGHEST,
        )
        return convolved.astype(gradient.dtype)

    return optax.stateless(update)


def kernel_profile(size: int, *, nsig: float, kind: str) -> np.ndarray:
    """The vector `[size]` with sum 1 whose outer product with itself is the kernel of `translation_kernel`.

    Raises:
      InputError: As in `translation_kernel`.
    """
    if checks.integer('size', size, at_least=1) % 2 == 0:
        raise errors.InputError(f'size must be odd, got {size!r}')
    checks.number('nsig', nsig, above=0)
    checks.one_of('kind', kind, KINDS)
    radius = size // 2
    distance = np.abs(np.arange(-radius, radius + 1))
    if kind == 'gaussian':
        profile = np.exp(-((distance * nsig / max(radius, 1)) ** 2) / 2)
    elif kind == 'linear':
        profile = 1 - distance / (radius + 1)
    else:
        profile = np.ones(size)
    normalized: np.ndarray = profile / np.sum(profile)
    return normalized

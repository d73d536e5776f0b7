"""Translation invariance by a kernel: the gradient convolved, in place of many shifted images.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rfn_jax.core import checks, errors

KINDS = ('gaussian', 'linear', 'uniform')


def translation_kernel(size: int = 15, nsig: float = 3.0, *, kind: str = 'gaussian') -> optax.GradientTransformation:
    r"""Translation invariance (TI): the gradient convolved with a kernel, channel by channel.

    .. math:: g \leftarrow W * g, \qquad W = w w^T / \textstyle\sum_{ij} (w w^T)_{ij}

    .. math::
        w_i = \begin{cases}
          \exp(-(i \, nsig / k)^2 / 2) & gaussian \\ 1 - |i| / (k + 1) & linear \\ 1 & uniform
        \end{cases}
        \qquad i = -k, ..., k, \quad size = 2 k + 1

    The gradient beyond the image is 0. Being a transformation of the gradient it comes before the momentum, as in the
    paper: `optax.chain(translation_kernel(), accumulate(), steepest('linf'))`.

    Args:
      size: Rows and columns of the kernel in pixels, odd, at least 1. 15 as in the paper; targeted attacks take 5.
      nsig: For `'gaussian'`: standard deviations from the center to the edge, above 0. 3 as in the code of the authors,
        in TransferAttack and in torchattacks, which makes the standard deviation of 15 pixels 7/3 pixels.
      kind: `'gaussian'`, `'linear'` or `'uniform'`. The linear kernel is that of the paper and of torchattacks, not the
        nearly flat one of TransferAttack.

    Returns:
      A stateless optax transformation of arrays `[B, H, W, C]`. Applied to gradients smaller than the kernel, it raises
      InputError.

    Raises:
      InputError: `size` or `nsig` is out of its range, or `kind` is unknown.

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
        # The kernel is an outer product: one band matrix for each axis.
        rows, columns = (sum(w * np.eye(n, k=i - size // 2) for i, w in enumerate(profile)) for n in (height, width))
        compute_type = jnp.promote_types(gradient.dtype, jnp.float32)
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
    """The line `[size]`, of sum 1, whose outer product with itself is the kernel of `translation_kernel`.

    Raises:
      InputError: As `translation_kernel`.
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

"""Spectrum simulation: noise, and random factors for the frequencies of the images.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax.attacks.inputs import transforms
from rfn_jax.core import checks, numerics

GRADIENTS = ('transformed', 'images')


def spectrum_simulation(
    copies: int = 20, rho: float = 0.5, sigma: float = 16 / 255, *, gradient: str = 'transformed'
) -> transforms.InputTransform:
    r"""Spectrum simulation (SSA): the discrete cosine transform of the noisy image is multiplied by random factors.

    .. math::
        T(x) = IDCT(DCT(x + \xi) \odot M), \qquad \xi \sim N(0, \sigma^2), \quad M \sim U(1 - \rho, 1 + \rho)

    The transform is over the rows and columns of each channel; a factor and a noise value are drawn for each value. The
    transform is orthonormal, unlike that of the authors, which makes no difference, since the factors act on each frequency
    separately. As in the authors' code, the image that the surrogate sees is not clipped to [0, 1].

    Args:
      copies: Number of copies, each with its own draws, at least 1. 20 as in the paper and TransferAttack.
      rho: :math:`\rho`, in [0, 1]. 0.5 as in the paper and TransferAttack.
      sigma: Standard deviation of the noise for images in [0, 1], at least 0. 16/255 as in the paper, where it is the
        budget of the attack.
      gradient: `'transformed'`: the gradient at :math:`T(x)` is used as that at x, as in the authors' code and in
        TransferAttack. `'images'`: the gradient is propagated through the transform to x.

    Returns:
      An input transform with `copies` copies.

    Raises:
      InputError: `copies`, `rho` or `sigma` is out of range, or `gradient` is unknown.

    References:
      Long et al., `Frequency Domain Model Augmentation for Adversarial Attack <https://arxiv.org/abs/2207.05382>`_, 2022.
    """
    copies = checks.integer('copies', copies, at_least=1)
    checks.number('rho', rho, at_least=0, at_most=1)
    checks.number('sigma', sigma, at_least=0)
    checks.one_of('gradient', gradient, GRADIENTS)

    def apply(inputs: transforms.Input) -> jax.Array:
        images = inputs.images
        compute_type = numerics.wide_dtype(images.dtype)

        def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            noise_key, factor_key = jax.random.split(key)
            noise = sigma * jax.random.normal(noise_key, images.shape[1:], compute_type)
            return noise, jax.random.uniform(factor_key, images.shape[1:], compute_type, 1 - rho, 1 + rho)

        noise, factors = jax.vmap(draw)(inputs.keys)
        frequencies = cosine_transform(images.astype(compute_type) + noise)
        transformed = cosine_transform(frequencies * factors, inverse=True).astype(images.dtype)
        if gradient == 'images':
            return transformed
        return jax.lax.stop_gradient(transformed) + (images - jax.lax.stop_gradient(images))  # the second term is 0

    return transforms.InputTransform('spectrum_simulation', apply, copies)


def cosine_transform(images: jax.Array, *, inverse: bool = False) -> jax.Array:
    r"""Computes the orthonormal discrete cosine transform (type II) over rows and columns, or its inverse.

    .. math:: X = D_H \, x \, D_W^T, \qquad (D_n)_{kj} = \sqrt{(2 - \delta_{k0}) / n} \; \cos(\pi (2 j + 1) k / (2 n))

    Args:
      images: `[B, H, W, C]`, float32 or float64.
      inverse: Whether to transform from frequencies to images.

    Returns:
      `[B, H, W, C]`.
    """
    rows, columns = (jnp.asarray(_cosines(length), images.dtype) for length in images.shape[1:3])
    if inverse:
        rows, columns = rows.T, columns.T
    return jnp.einsum('ih,bhwc,jw->bijc', rows, images, columns, precision=jax.lax.Precision.HIGHEST)


def _cosines(length: int) -> np.ndarray:
    """The matrix `[length, length]` that transforms a line."""
    k = np.arange(length)[:, None]
    matrix: np.ndarray = np.sqrt(2 / length) * np.cos(np.pi * (2 * np.arange(length) + 1) * k / (2 * length))
    matrix[0] /= np.sqrt(2)
    return matrix

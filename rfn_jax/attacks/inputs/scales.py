"""Scale invariance: copies of the images at lower and lower contrast.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import jax
import jax.numpy as jnp

from rfn_jax.attacks.inputs import transforms
from rfn_jax.core import checks


def scale_copies(copies: int = 5) -> transforms.InputTransform:
    r"""Scale invariance (SI): copy i is the image over a power of two.

    .. math:: T_i(x) = x / 2^i, \qquad i = 0, ..., m - 1

    The gradient is with respect to x, as in the paper: that of copy i has a factor of :math:`2^{-i}`.

    Args:
      copies: :math:`m`, at least 1. 5 as in the paper, TransferAttack and torchattacks.

    Returns:
      An input transform of `copies` copies, without draws.

    Raises:
      InputError: `copies` is not an integer of at least 1.

    References:
      Lin et al., `Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks
      <https://arxiv.org/abs/1908.06281>`_, 2020.
    """
    copies = checks.integer('copies', copies, at_least=1)

    def apply(given: transforms.Input) -> jax.Array:
        factors = jnp.asarray([0.5**i for i in range(copies)], given.images.dtype)
        return given.images * factors[given.copy]

    return transforms.InputTransform('scale_copies', apply, copies)

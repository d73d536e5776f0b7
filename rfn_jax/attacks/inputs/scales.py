"""Scale invariance: copies of the images with lower and lower contrast.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import jax
import jax.numpy as jnp

from rfn_jax.attacks.inputs import transforms
from rfn_jax.core import checks


def scale_copies(copies: int = 5) -> transforms.InputTransform:
    r"""Scale invariance (SI): copy i is the image divided by a power of two.

    .. math:: T_i(x) = x / 2^i, \qquad i = 0, ..., m - 1

    As in the paper, the gradient is with respect to x, so that of copy i has a factor of :math:`2^{-i}`.

    Args:
      copies: :math:`m`, at least 1. 5 as in the paper, TransferAttack and torchattacks.

    Returns:
      An input transform with `copies` copies; it draws nothing.

    Raises:
      InputError: `copies` is not an integer that is at least 1.

    References:
      Lin et al., `Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks
      <https://arxiv.org/abs/1908.06281>`_, 2020.
    """
    copies = checks.integer('copies', copies, at_least=1)

    def apply(inputs: transforms.Input) -> jax.Array:
        factors = jnp.asarray([0.5**i for i in range(copies)], inputs.images.dtype)
        return inputs.images * factors[inputs.copy]

    return transforms.InputTransform('scale_copies', apply, copies)

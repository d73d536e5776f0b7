"""The registry of minimizers that a config can name, and the SGD that usually follows them."""

import optax

from rfn_jax.core import registry
from rfn_jax.optim import arguments
from rfn_jax.optim.asam import asam, rfn_asam
from rfn_jax.optim.esam import esam, rfn_esam
from rfn_jax.optim.friendly_sam import friendly_sam, rfn_friendly_sam
from rfn_jax.optim.gsam import gsam, rfn_gsam
from rfn_jax.optim.looksam import looksam, rfn_looksam
from rfn_jax.optim.random_sam import random_sam
from rfn_jax.optim.sam import rfn_sam, sam

MINIMIZERS: registry.Registry[optax.GradientTransformation] = registry.Registry('minimizer')
for _factory in (
    sam, rfn_sam, asam, rfn_asam, gsam, rfn_gsam, looksam, rfn_looksam, esam, rfn_esam, friendly_sam, rfn_friendly_sam,
    random_sam,
):  # fmt: skip
    MINIMIZERS.register(_factory)


@MINIMIZERS.register
def sgd() -> optax.GradientTransformation:
    """Returns the gradient unchanged: plain SGD."""
    return optax.identity()


def momentum_sgd(
    learning_rate: optax.ScalarOrSchedule, *, momentum: float, weight_decay: float
) -> optax.GradientTransformationExtraArgs:
    r"""SGD as PyTorch defines it, for use after a minimizer: `optax.chain(rfn_sam(), momentum_sgd(...))`.

    .. math:: m \leftarrow \mu m + (g + \lambda w), \qquad w \leftarrow w - \eta m

    Args:
      learning_rate: :math:`\eta`, a number or an optax schedule.
      momentum: :math:`\mu`, in `[0, 1)`.
      weight_decay: :math:`\lambda`, at least 0; applied to all parameters, as in the paper.

    Returns:
      An optax chain.

    Raises:
      InputError: `momentum` or `weight_decay` is out of range.
    """
    arguments.check_number('momentum', momentum, at_least=0, below=1)
    arguments.check_number('weight_decay', weight_decay, at_least=0)
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum=momentum))

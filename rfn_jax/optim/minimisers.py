"""The minimisers that a config can name, and the optimiser built around one of them."""

import optax

from rfn_jax.core import errors, registry
from rfn_jax.optim import sam

MINIMISERS = registry.Registry('minimiser')
MINIMISERS.register(sam.rfn_sam)


@MINIMISERS.register
def sgd() -> optax.GradientTransformation:
    """Leaves the gradient as it is: plain SGD."""
    return optax.identity()


def momentum_sgd(
    minimiser: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float,
    weight_decay: float,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD as PyTorch defines it, behind a minimiser.

    .. math:: m \leftarrow \mu m + (\tilde g + \lambda w), \qquad w \leftarrow w - \eta m

    Args:
      minimiser: Gives the gradient :math:`\tilde g`, such as `rfn_sam()`; first in the chain.
      learning_rate: Number or optax schedule.
      momentum: :math:`\mu`, in `[0, 1)`.
      weight_decay: :math:`\lambda`, at least 0; on all parameters, as in the paper.

    Returns:
      An optax chain whose `update` takes `grad_fn`.

    Raises:
      InputError: `momentum` or `weight_decay` is out of its range.
    """
    if not 0 <= momentum < 1:
        raise errors.InputError(f'momentum must be in [0, 1), got {momentum!r}')
    if not weight_decay >= 0:
        raise errors.InputError(f'weight_decay must be at least 0, got {weight_decay!r}')
    return optax.chain(minimiser, optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum=momentum))

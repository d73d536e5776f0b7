"""Adaptive sharpness-aware minimization (ASAM)."""

import optax

from rfn_jax.optim import arguments, masks, neighborhoods
from rfn_jax.optim.sharpness_aware import sharpness_aware


def asam(
    rho: optax.ScalarOrSchedule = 0.5,
    *,
    eta: float = 0.01,
    mask: masks.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SAM in a neighborhood that measures each weight relative to its size, so that the scale of weights does not matter.

    .. math::
      \nabla L\left(w + \rho \frac{T^2 g}{\|T g\|_2}\right), \qquad T = |w| + \eta

    with :math:`T` elementwise and the norm over all perturbed parameters. If all weights have magnitude 1, this is `sam` with
    radius :math:`(1 + \eta) \rho`. The authors' code leaves biases unscaled; here they are scaled like all other parameters,
    or excluded by the mask `'no_biases'`.

    Args:
      rho: Radius, a number or a schedule; 0.5 is the paper's value for CIFAR-10. It is not comparable with that of `sam`.
      eta: :math:`\eta`, at least 0; 0.01 in the paper.
      mask: Which parameters are perturbed; see `sam`.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose `update` needs `params` and `grad_fn`; see `sam`.

    Raises:
      ValueError: `rho` or `eta` is negative or not finite; otherwise as for `sam`.
      TypeError: As for `sam`.

    References:
      Kwon et al., `ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural Networks
      <https://arxiv.org/abs/2102.11600>`_, 2021.
    """
    arguments.check_number('eta', eta, at_least=0)
    neighborhood = neighborhoods.scaled_ball(eta)
    return sharpness_aware('asam', rho, mask, lambda inputs: inputs.ascend(neighborhood=neighborhood))


def rfn_asam(
    rho: optax.ScalarOrSchedule = 4.0, *, eta: float = 0.01, mask: masks.Mask = None
) -> optax.GradientTransformationExtraArgs:
    """`asam` in a large neighborhood: 8 times the usual radius, just as 0.4 is 8 times SAM's 0.05.

    The factor is taken over from SAM and not tuned for ASAM; choose `rho` on validation data. Arguments, result and errors
    are those of `asam`.
    """
    return asam(rho, eta=eta, mask=mask)

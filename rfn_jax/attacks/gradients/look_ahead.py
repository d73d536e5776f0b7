"""Nesterov's look-ahead: the gradient at the point to which the momentum is about to lead.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import jax
import optax

from rfn_jax.attacks.gradients import estimate
from rfn_jax.core import checks, errors


def look_ahead(
    step_size: float, decay: float = 1.0, inner: estimate.GradientEstimate = estimate.AT_IMAGE
) -> estimate.GradientEstimate:
    r"""The gradient at a point ahead of the image, along the momentum of the previous steps, as in NI-FGSM.

    .. math:: g_t = \nabla L(x_t + \alpha \mu m_t)

    where :math:`m_t` is the momentum that `accumulate` holds before step t, initially zero. The look-ahead follows the
    momentum itself, not its sign, so it is meant for momentum over normalized gradients. A step takes one evaluation.

    Args:
      step_size: :math:`\alpha`, the step size of the attack, above 0.
      decay: :math:`\mu`, the decay of the momentum in `accumulate`, at least 0.
      inner: Estimate of the gradient at the point ahead.

    Returns:
      A gradient estimate; when its `update` is traced, it raises `InputError` unless the direction of the attack contains
      exactly one `accumulate`.

    Raises:
      InputError: `step_size` or `decay` is out of range.

    References:
      Lin et al., `Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks
      <https://arxiv.org/abs/1908.06281>`_, 2020; they use a decay of 1.
    """
    checks.number('step_size', step_size, above=0)
    checks.number('decay', decay, at_least=0)

    def update(
        grad_fn: estimate.GradFn, images: jax.Array, state: estimate.State, keys: jax.Array, step: estimate.Step
    ) -> tuple[jax.Array, estimate.State]:
        ahead = images + (step_size * decay * _momentum(step.direction_state)).astype(images.dtype)
        return inner.update(grad_fn, ahead, state, keys, step)

    return estimate.GradientEstimate(inner.init, update, inner.evaluations)


def _momentum(direction_state: optax.OptState) -> jax.Array:
    """Returns the momentum `[B, H, W, C]` in the state of a direction."""
    momenta = optax.tree_utils.tree_get_all_with_path(direction_state, 'momentum')
    if len(momenta) != 1:
        raise errors.InputError(
            'look_ahead follows the momentum of the direction, which must contain accumulate exactly once, got '
            f'{len(momenta)} momenta'
        )
    momentum: jax.Array = momenta[0][1]
    return momentum

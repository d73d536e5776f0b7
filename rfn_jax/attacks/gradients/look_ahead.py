"""The look-ahead of Nesterov: the gradient where the momentum is about to lead.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import jax
import optax

from rfn_jax.attacks.gradients import estimate
from rfn_jax.core import checks, errors


def look_ahead(
    step_size: float, decay: float = 1.0, inner: estimate.GradientEstimate = estimate.AT_IMAGE
) -> estimate.GradientEstimate:
    r"""The gradient ahead of the image, along the momentum of the steps before, as in NI-FGSM.

    .. math:: g_t = \nabla L(x_t + \alpha \mu m_t)

    where :math:`m_t` is the momentum that `accumulate` holds before step t, zero at first. It is the momentum itself that
    is followed, not its sign, so `look_ahead` is for momenta over normalized gradients. One evaluation a step.

    Args:
      step_size: :math:`\alpha`, the step size of the attack, above 0.
      decay: :math:`\mu`, the decay of the momentum, at least 0; that of `accumulate`.
      inner: Estimate of the gradient at the point ahead.

    Returns:
      A gradient estimate; its `update` raises `InputError`, when it is traced, unless there is exactly one `accumulate` in
      the direction of the attack.

    Raises:
      InputError: `step_size` or `decay` is out of its range.

    References:
      Lin et al., `Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks
      <https://arxiv.org/abs/1908.06281>`_, 2020; decay 1 is theirs.
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
    """The momentum `[B, H, W, C]` in the state of a direction."""
    found = optax.tree_utils.tree_get_all_with_path(direction_state, 'momentum')
    if len(found) != 1:
        raise errors.InputError(
            f'look_ahead follows the momentum of the direction: it needs accumulate in it, once, got {len(found)} momenta'
        )
    momentum: jax.Array = found[0][1]
    return momentum

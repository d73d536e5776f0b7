"""Reverse adversarial perturbation: the gradient at a nearby point where the loss is lowest.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import jax
import jax.numpy as jnp

from rfn_jax.attacks import keys as keys_lib
from rfn_jax.attacks.gradients import estimate
from rfn_jax.core import checks


def reverse_perturbation(
    radius: float,
    step_size: float,
    inner_steps: int = 8,
    late_start: int = 100,
    random_start: bool = True,
    inner: estimate.GradientEstimate = estimate.AT_IMAGE,
) -> estimate.GradientEstimate:
    r"""The gradient at the image after moving it to a nearby point of low loss, as in RAP; flat maxima are not affected.

    .. math::
        g_t = \nabla L(x_t + n_K), \qquad
        n_{k+1} = clip(n_k - \alpha_n \, sign(\nabla L(x_t + n_k)), -\epsilon_n, \epsilon_n)

    from step `late_start` on, and :math:`g_t = \nabla L(x_t)` before. Each step searches for its perturbation anew, from a
    point drawn uniformly within the radius, as in the authors' code (`pgd` in `rap_attack_new.py` of
    SCLBD/Transfer_attack_RAP) and in TransferAttack (`gradient/rap.py`). As in both, :math:`x_t + n_k` is kept in [0, 1]. A
    step takes one evaluation, and `inner_steps` more from `late_start` on.

    Args:
      radius: :math:`\epsilon_n`, above 0: the largest change of a value.
      step_size: :math:`\alpha_n`, above 0.
      inner_steps: K, at least 1.
      late_start: Number of the first step with a perturbation, at least 0; if the attack has no such step, there is no
        perturbation.
      random_start: Whether :math:`n_0` is drawn from U[-radius, radius]; otherwise it is 0.
      inner: Estimate of the gradient at the point that was found.

    Returns:
      A gradient estimate.

    Raises:
      InputError: An argument is out of range.

    References:
      Qin et al., `Boosting the Transferability of Adversarial Attacks with Reverse Adversarial Perturbation
      <https://arxiv.org/abs/2210.05968>`_, 2022. For eps = 16/255 they use a radius of 16/255, a step size of 2/255 (the
      radius divided by the number of inner steps), 8 inner steps, and a late start at step 100 of 400.
    """
    checks.number('radius', radius, above=0)
    checks.number('step_size', step_size, above=0)
    inner_steps = checks.integer('inner_steps', inner_steps, at_least=1)
    late_start = checks.integer('late_start', late_start, at_least=0)

    def update(
        grad_fn: estimate.GradFn, images: jax.Array, state: estimate.State, keys: jax.Array, step: estimate.Step
    ) -> tuple[jax.Array, estimate.State]:
        # Key 0 of a step is for the gradient, key 1 for the start, key k + 2 for inner step k.
        is_late = step.number >= late_start

        def clip(change: jax.Array) -> jax.Array:
            return jnp.clip(jnp.clip(change, -radius, radius), -images, 1 - images)

        def descend(number: jax.Array, change: jax.Array) -> jax.Array:
            gradient = grad_fn(images + change, keys_lib.fold(keys, number + 2))
            return clip(change - step_size * jnp.sign(gradient).astype(change.dtype))

        change = jnp.zeros_like(images)
        if random_start:
            start = keys_lib.uniform(keys_lib.fold(keys, 1), images, radius)
            change = jnp.where(is_late, clip(start), 0)
        # The length of the loop is determined at run time, so before the late start the inner steps cost nothing.
        change = jax.lax.fori_loop(0, jnp.where(is_late, inner_steps, 0), descend, change)
        return inner.update(grad_fn, images + change, state, keys_lib.fold(keys, 0), step)

    def evaluations(steps: int) -> int:
        return inner.evaluations(steps) + inner_steps * max(0, steps - late_start)

    return estimate.GradientEstimate(inner.init, update, evaluations)

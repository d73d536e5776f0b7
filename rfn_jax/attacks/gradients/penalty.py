"""Gradients that lead to flat maxima, by a penalty on the norm of the gradient.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import jax

from rfn_jax.attacks import keys as keys_lib
from rfn_jax.attacks.gradients import estimate
from rfn_jax.core import checks, numerics


def penalized_norm(
    radius: float, step_size: float, neighbors: int = 20, balance: float = 0.5
) -> estimate.GradientEstimate:
    r"""The gradient of the loss less a penalty on its gradient norm, averaged over the neighborhood, as in PGN.

    .. math::
        g_t = \frac{1}{N} \sum_{i=1}^N (1 - \delta) \nabla L(x_i) + \delta \nabla L(x_i^*), \qquad
        x_i = x_t + r_i, \quad x_i^* = x_i - \alpha \frac{\nabla L(x_i)}{mean(|\nabla L(x_i)|)}, \quad
        r_i \sim U[-\zeta, \zeta]^d

    The difference of the two gradients stands for a product with the Hessian, so both see the same draws of random
    transforms. The mean absolute value is the L1 norm of the paper over the size of the image, as in the authors' code and
    in TransferAttack, and is taken over one image, never over the batch. The points are not clipped to [0, 1].
    `2 * neighbors` evaluations a step.

    Args:
      radius: :math:`\zeta`, above 0: how far a value of a neighbor is from that of the image, at most.
      step_size: :math:`\alpha`, above 0: how far the second point is, in the mean over its values; the step size of the
        attack in the paper.
      neighbors: N, at least 1.
      balance: :math:`\delta`, in [0, 1]: the share of the second gradient; 0 is no penalty.

    Returns:
      A gradient estimate.

    Raises:
      InputError: An argument is out of its range.

    References:
      Ge et al., `Boosting Adversarial Transferability by Achieving Flat Local Maxima
      <https://arxiv.org/abs/2306.05225>`_, 2023. They take a radius of 3 eps, a step size of eps / 10, 20 neighbors and a
      balance of 0.5, as TransferAttack does.
    """
    checks.number('radius', radius, above=0)
    checks.number('step_size', step_size, above=0)
    neighbors = checks.integer('neighbors', neighbors, at_least=1)
    checks.number('balance', balance, at_least=0, at_most=1)

    def update(
        grad_fn: estimate.GradFn, images: jax.Array, state: estimate.State, keys: jax.Array, step: estimate.Step
    ) -> tuple[jax.Array, estimate.State]:
        def at_neighbor(number: jax.Array) -> jax.Array:
            own = keys_lib.fold(keys, number)
            draws = keys_lib.fold(own, 1)
            neighbor = images + keys_lib.uniform(keys_lib.fold(own, 0), images, radius)
            first = grad_fn(neighbor, draws)
            back = step_size * numerics.safe_divide(first, numerics.batch_mean_abs(first))
            second = grad_fn(neighbor - back.astype(images.dtype), draws)
            return (1 - balance) * first + balance * second

        return step.mean_over(neighbors, at_neighbor), state

    return estimate.GradientEstimate(lambda images: (), update, lambda steps: 2 * neighbors * steps)

"""Gradients that lead to flat maxima, due to a penalty on the norm of the gradient.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import jax

from rfn_jax.attacks import keys as keys_lib
from rfn_jax.attacks.gradients import estimate
from rfn_jax.core import checks, numerics


def penalized_norm(
    radius: float, step_size: float, neighbors: int = 20, balance: float = 0.5
) -> estimate.GradientEstimate:
    r"""The gradient of the loss minus a penalty on its gradient norm, averaged over a neighborhood, as in PGN.

    .. math::
        g_t = \frac{1}{N} \sum_{i=1}^N (1 - \delta) \nabla L(x_i) + \delta \nabla L(x_i^*), \qquad
        x_i = x_t + r_i, \quad x_i^* = x_i - \alpha \frac{\nabla L(x_i)}{mean(|\nabla L(x_i)|)}, \quad
        r_i \sim U[-\zeta, \zeta]^d

    The difference of the two gradients approximates a product with the Hessian, so both use the same draws of random
    transforms. The mean absolute value is the paper's L1 norm divided by the size of the image, as in the authors' code and
    in TransferAttack; it is taken over one image, never over the batch. The points are not clipped to [0, 1]. A step takes
    `2 * neighbors` evaluations.

    Args:
      radius: :math:`\zeta`, above 0: the largest difference between a value of a neighbor and that of the image.
      step_size: :math:`\alpha`, above 0: the distance to the second point, as a mean over its values; in the paper, the step
        size of the attack.
      neighbors: N, at least 1.
      balance: :math:`\delta`, in [0, 1]: the weight of the second gradient; 0 means no penalty.

    Returns:
      A gradient estimate.

    Raises:
      InputError: An argument is out of range.

    References:
      Ge et al., `Boosting Adversarial Transferability by Achieving Flat Local Maxima
      <https://arxiv.org/abs/2306.05225>`_, 2023. They use a radius of 3 eps, a step size of eps / 10, 20 neighbors and a
      balance of 0.5, like TransferAttack.
    """
    checks.number('radius', radius, above=0)
    checks.number('step_size', step_size, above=0)
    neighbors = checks.integer('neighbors', neighbors, at_least=1)
    checks.number('balance', balance, at_least=0, at_most=1)

    def update(
        grad_fn: estimate.GradFn, images: jax.Array, state: estimate.State, keys: jax.Array, step: estimate.Step
    ) -> tuple[jax.Array, estimate.State]:
        def at_neighbor(number: jax.Array) -> jax.Array:
            neighbor_keys = keys_lib.fold(keys, number)
            gradient_keys = keys_lib.fold(neighbor_keys, 1)
            neighbor = images + keys_lib.uniform(keys_lib.fold(neighbor_keys, 0), images, radius)
            first = grad_fn(neighbor, gradient_keys)
            change = step_size * numerics.safe_divide(first, numerics.batch_mean_abs(first))
            second = grad_fn(neighbor - change.astype(images.dtype), gradient_keys)
            return (1 - balance) * first + balance * second

        return step.mean_over(neighbors, at_neighbor), state

    return estimate.GradientEstimate(lambda images: (), update, lambda steps: 2 * neighbors * steps)

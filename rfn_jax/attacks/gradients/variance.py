"""Variance tuning: the gradient corrected by how it differed in the neighborhood at the previous step.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

from typing import NamedTuple

import jax

from rfn_jax.attacks import keys as keys_lib
from rfn_jax.attacks.gradients import estimate
from rfn_jax.core import checks, numerics

AROUND = ('image', 'inner')


class VarianceState(NamedTuple):
    """State of `variance_tuned`.

    Attributes:
      variance: Mean gradient of the neighbors minus the gradient, at the previous step, `[B, H, W, C]`, in at least float32.
      inner: State of the inner estimate.
    """

    variance: jax.Array
    inner: estimate.State


def variance_tuned(
    radius: float,
    neighbors: int = 20,
    around: str = 'image',
    inner: estimate.GradientEstimate = estimate.AT_IMAGE,
) -> estimate.GradientEstimate:
    r"""The sum of the gradient and the gradient variance of the previous step, as in VMI-FGSM and VNI-FGSM.

    .. math::
        g_t = \hat g_t + v_t, \qquad
        v_{t+1} = \frac{1}{N} \sum_{i=1}^N \nabla L(x_t + r_i) - \hat g_t, \qquad
        r_i \sim U[-\beta, \beta]^d, \quad v_0 = 0

    where :math:`\hat g_t` is the inner estimate: the gradient at the image gives VMI-FGSM, and `look_ahead` gives VNI-FGSM.
    The neighbors are not clipped to [0, 1]. A step takes `1 + neighbors` evaluations.

    Args:
      radius: :math:`\beta`, above 0: the largest difference between a value of a neighbor and that of the image.
      neighbors: N, at least 1.
      around: How the gradients of the neighbors are computed. `'image'`: at the neighbors of the image, regardless of the
        inner estimate, as in the authors' code and in torchattacks. `'inner'`: by the inner estimate at each neighbor, so
        that the neighbors look ahead as well, much as in TransferAttack (which looks ahead along the momentum after the
        step).
      inner: The estimate of the gradient that is tuned.

    Returns:
      A gradient estimate.

    Raises:
      InputError: An argument is out of range.

    References:
      Wang and He, `Enhancing the Transferability of Adversarial Attacks through Variance Tuning
      <https://arxiv.org/abs/2103.15571>`_, 2021. They use 20 neighbors and a radius of 1.5 eps; torchattacks uses 5
      neighbors.
    """
    checks.number('radius', radius, above=0)
    neighbors = checks.integer('neighbors', neighbors, at_least=1)
    checks.one_of('around', around, AROUND)

    def init(images: jax.Array) -> VarianceState:
        return VarianceState(numerics.wide_zeros_like(images), inner.init(images))

    def update(
        grad_fn: estimate.GradFn, images: jax.Array, state: VarianceState, keys: jax.Array, step: estimate.Step
    ) -> tuple[jax.Array, VarianceState]:
        # Key 0 of a step is for the inner estimate, key i + 1 for neighbor i.
        gradient, inner_state = inner.update(grad_fn, images, state.inner, keys_lib.fold(keys, 0), step)

        def at_neighbor(number: jax.Array) -> jax.Array:
            neighbor_keys = keys_lib.fold(keys, number + 1)
            neighbor = images + keys_lib.uniform(keys_lib.fold(neighbor_keys, 0), images, radius)
            if around == 'image':
                return grad_fn(neighbor, keys_lib.fold(neighbor_keys, 1))
            return inner.update(grad_fn, neighbor, state.inner, keys_lib.fold(neighbor_keys, 1), step)[0]

        variance = step.mean_over(neighbors, at_neighbor) - gradient
        return gradient + state.variance, VarianceState(variance.astype(state.variance.dtype), inner_state)

    def evaluations(steps: int) -> int:
        neighbor_evaluations = steps if around == 'image' else inner.evaluations(steps)
        return inner.evaluations(steps) + neighbors * neighbor_evaluations

    return estimate.GradientEstimate(init, update, evaluations)

"""Patch-wise steps: large steps whose excess over the budget is spread over the surrounding pixels.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rfn_jax.core import checks, errors, numerics


class PatchwiseState(NamedTuple):
    r"""State of `patchwise`.

    Attributes:
      amplification: The sum of all steps so far without clipping, `[B, H, W, C]`, in at least float32: integers, in units
        of :math:`\alpha \beta`.
    """

    amplification: jax.Array


def patchwise(
    step_size: float, eps: float, amplification: float = 10.0, kernel_size: int = 3
) -> optax.GradientTransformation:
    r"""Amplified signs of the gradient; the part of their sum that exceeds the budget is moved to the neighboring pixels.

    .. math::
        a \leftarrow a + \alpha \beta \, sign(g), \qquad
        c = max(|a| - \epsilon, 0) \, sign(a), \qquad
        p = \gamma \, sign(W * c), \qquad
        a \leftarrow a + p

    The step is :math:`\alpha \beta \, sign(g) + p`, where :math:`\gamma = \alpha \beta` as in the paper, and W is a square of
    equal weights, except for a 0 in the middle, that is applied to each channel, with zeros around the image. The direction
    is the step divided by :math:`\alpha`, so it replaces `steepest('linf')` in an L-infinity attack with this step size and
    `eps`; after `accumulate`, it is the variant with momentum.

    Args:
      step_size: :math:`\alpha`, the step size of the attack, above 0.
      eps: :math:`\epsilon`, the radius of the attack's L-infinity budget, above 0.
      amplification: :math:`\beta`, above 0.
      kernel_size: Side of W in pixels, odd, at least 3.

    Returns:
      An optax transformation of arrays `[B, H, W, C]`. A zero gradient amplifies nothing.

    Raises:
      InputError: An argument is out of range.

    References:
      Gao et al., `Patch-wise Attack for Fooling Deep Neural Network <https://arxiv.org/abs/2007.06765>`_, 2020. For eps =
      16/255 they use 10 steps of eps / 10, an amplification of 10 and a kernel of 3, like torchattacks and TransferAttack.
    """
    for name, value in (('step_size', step_size), ('eps', eps), ('amplification', amplification)):
        checks.number(name, value, above=0)
    kernel_size = checks.integer('kernel_size', kernel_size, at_least=3)
    if kernel_size % 2 == 0:
        raise errors.InputError(f'kernel_size must be odd, got {kernel_size!r}')
    limit = eps / (step_size * amplification)

    def sum_neighbors(values: jax.Array) -> jax.Array:
        """Returns the sum over the pixels around each pixel, exact for integers on any device and in any order."""
        window = (1, kernel_size, kernel_size, 1)
        sums: jax.Array = jax.lax.reduce_window(values, 0.0, jax.lax.add, window, (1, 1, 1, 1), 'SAME')
        return sums - values

    def init_fn(images: jax.Array) -> PatchwiseState:
        return PatchwiseState(numerics.wide_zeros_like(images))

    def update_fn(
        gradient: jax.Array, state: PatchwiseState, images: jax.Array | None = None
    ) -> tuple[jax.Array, PatchwiseState]:
        del images
        sign = jnp.sign(gradient).astype(state.amplification.dtype)
        total = state.amplification + sign
        # W * c up to scale, from two sums of integers: only then is the sign exactly 0 where excess cancels out.
        excess_sign = jnp.where(jnp.abs(total) > limit, jnp.sign(total), 0)
        projection = jnp.sign(sum_neighbors(total * jnp.abs(excess_sign)) - limit * sum_neighbors(excess_sign))
        return amplification * (sign + projection), PatchwiseState(total + projection)

    return optax.GradientTransformation(init_fn, update_fn)

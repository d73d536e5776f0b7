"""Patch-wise steps: large steps whose excess over the budget is spread over the pixels around.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rfn_jax.core import checks, errors


class PatchwiseState(NamedTuple):
    r"""State of `patchwise`.

    Attributes:
      amplification: All steps so far without clipping, `[B, H, W, C]`, in float32 at least, in units of
        :math:`\alpha \beta`: integers.
    """

    amplification: jax.Array


def patchwise(
    step_size: float, eps: float, amplification: float = 10.0, kernel_size: int = 3
) -> optax.GradientTransformation:
    r"""Amplified signs of the gradient, and the part of their sum that is beyond the budget moved to its neighbors.

    .. math::
        a \leftarrow a + \alpha \beta \, sign(g), \qquad
        c = max(|a| - \epsilon, 0) \, sign(a), \qquad
        p = \gamma \, sign(W * c), \qquad
        a \leftarrow a + p

    and the step is :math:`\alpha \beta \, sign(g) + p`, with :math:`\gamma = \alpha \beta` as in the paper, and W a square of
    equal weights but 0 in the middle, channel by channel, with zeros around the image. The direction is the step over
    :math:`\alpha`, so it takes the place of `steepest('linf')` in an L-infinity attack of that step size and `eps`; after
    `accumulate` it is the variant with momentum.

    Args:
      step_size: :math:`\alpha`, the step size of the attack, above 0.
      eps: :math:`\epsilon`, the radius of the attack's L-infinity budget, above 0.
      amplification: :math:`\beta`, above 0.
      kernel_size: Side of W in pixels, odd, at least 3.

    Returns:
      An optax transformation of arrays `[B, H, W, C]`. A zero gradient amplifies nothing.

    Raises:
      InputError: An argument is out of its range.

    References:
      Gao et al., `Patch-wise Attack for Fooling Deep Neural Network <https://arxiv.org/abs/2007.06765>`_, 2020. For eps =
      16/255 they take 10 steps of eps / 10, an amplification of 10 and a kernel of 3, as torchattacks and TransferAttack
      do.
    """
    for name, value in (('step_size', step_size), ('eps', eps), ('amplification', amplification)):
        checks.number(name, value, above=0)
    kernel_size = checks.integer('kernel_size', kernel_size, at_least=3)
    if kernel_size % 2 == 0:
        raise errors.InputError(f'kernel_size must be odd, got {kernel_size!r}')
    limit = eps / (step_size * amplification)

    def around(values: jax.Array) -> jax.Array:
        """The sums over the pixels around each, exact for integers whatever the order and the device."""
        window = (1, kernel_size, kernel_size, 1)
        sums: jax.Array = jax.lax.reduce_window(values, 0.0, jax.lax.add, window, (1, 1, 1, 1), 'SAME')
        return sums - values

    def init_fn(images: jax.Array) -> PatchwiseState:
        return PatchwiseState(jnp.zeros(images.shape, jnp.promote_types(images.dtype, jnp.float32)))

    def update_fn(
        gradient: jax.Array, state: PatchwiseState, images: jax.Array | None = None
    ) -> tuple[jax.Array, PatchwiseState]:
        del images
        sign = jnp.sign(gradient).astype(state.amplification.dtype)
        total = state.amplification + sign
        # W * c up to scale, from two sums of integers: only so is the sign of what cancels 0.
        beyond = jnp.where(jnp.abs(total) > limit, jnp.sign(total), 0)
        projection = jnp.sign(around(total * jnp.abs(beyond)) - limit * around(beyond))
        return amplification * (sign + projection), PatchwiseState(total + projection)

    return optax.GradientTransformation(init_fn, update_fn)

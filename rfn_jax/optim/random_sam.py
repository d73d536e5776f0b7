"""The control of all sharpness-aware minimizers: a random direction of the same length."""

import jax
import optax

from rfn_jax.core import numerics
from rfn_jax.optim import arguments, ascent, masks, random_trees
from rfn_jax.optim.sharpness_aware import Call, sharpness_aware


def random_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    seed: int = 0,
    mask: masks.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""The gradient at a random point at distance :math:`\rho`, where `sam` takes the worst one.

    .. math::
      \nabla L\left(w + \rho \frac{z}{\|z\|_2}\right), \qquad z \sim \mathcal{N}(0, I)

    drawn anew at each update. It tells how much of the effect of `sam` is noise in the weights.

    Args:
      rho: Radius, a number or a schedule; see `sam`.
      seed: Seed of the directions; the same seed gives the same directions at every run and on every number of devices.
      mask: Which parameters are perturbed; see `sam`.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose `update` needs `params` and `grad_fn`; see `sam`. An extra argument
      `group_index` is folded into the key, so that the groups of m-sharpness draw directions of their own.

    Raises:
      ValueError: `rho` is negative or not finite; or as `sam`.
      TypeError: As `sam`.
    """
    arguments.check_seed(seed)

    def at_random(call: Call) -> ascent.Climb:
        direction = random_trees.draw(
            call.params,
            (seed, call.count, call.extra_args.get('group_index', 0)),
            lambda key, w: jax.random.normal(key, w.shape, numerics.wide_dtype(w.dtype)),
        )
        return call.climb(direction=direction)

    return sharpness_aware('random_sam', rho, mask, at_random)

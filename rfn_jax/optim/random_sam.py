"""The control for all sharpness-aware minimizers: a perturbation of the same length in a random direction."""

import jax
import optax

from rfn_jax.core import numerics
from rfn_jax.optim import arguments, ascent, masks, random_trees
from rfn_jax.optim.sharpness_aware import UpdateInputs, sharpness_aware


def random_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    seed: int = 0,
    mask: masks.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Replaces the gradient by that at a random point at distance :math:`\rho`, instead of the worst point as in `sam`.

    .. math::
      \nabla L\left(w + \rho \frac{z}{\|z\|_2}\right), \qquad z \sim \mathcal{N}(0, I)

    drawn anew at each update. As a control, it shows how much of the effect of `sam` is due to mere noise in the weights.

    Args:
      rho: Radius, a number or a schedule; see `sam`.
      seed: Seed of the directions; the same seed gives the same directions in every run and on any number of devices.
      mask: Which parameters are perturbed; see `sam`.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose `update` needs `params` and `grad_fn`; see `sam`. The
      optional argument `group_index` is folded into the key, so that each group in m-sharpness draws its own direction.

    Raises:
      ValueError: `rho` is negative or not finite; otherwise as for `sam`.
      TypeError: As for `sam`.
    """
    arguments.check_seed(seed)

    def perturb_randomly(inputs: UpdateInputs) -> ascent.AscentResult:
        direction = random_trees.draw(
            inputs.params,
            random_trees.key_of(seed, inputs.count, inputs.extra_args.get('group_index', 0)),
            lambda key, w: jax.random.normal(key, w.shape, numerics.wide_dtype(w.dtype)),
        )
        return inputs.ascend(direction=direction)

    return sharpness_aware('random_sam', rho, mask, perturb_randomly)

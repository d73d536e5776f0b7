"""Efficient sharpness-aware minimization (ESAM)."""

import math

import jax
import jax.numpy as jnp
import optax

from rfn_jax.core import errors
from rfn_jax.optim import arguments, ascent, masks, neighborhoods, random_trees
from rfn_jax.optim.sharpness_aware import UpdateInputs, sharpness_aware


def esam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    beta: float = 0.5,
    gamma: float = 0.5,
    seed: int = 0,
    mask: masks.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SAM that perturbs a random subset of the weights and descends on the examples whose loss increased most.

    *Stochastic weight perturbation*: with :math:`b_i \sim \mathrm{Bernoulli}(\beta)` for each weight, drawn anew at each
    update,

    .. math::
      e = \frac{\rho}{\beta} \, b \odot \frac{g}{\|g\|_2}

    which equals the perturbation of `sam` in expectation. *Sharpness-sensitive data selection*: of the B examples in the
    batch, the :math:`\lceil \gamma B \rceil` with the largest increase :math:`L_i(w + e) - L_i(w)` are kept (among equal
    increases, those that come first in the batch), and the gradient is that of their mean loss at :math:`w + e`. After a
    forward pass over the batch, the second gradient then costs a fraction :math:`\gamma` of the first.

    Args:
      rho: Radius, a number or a schedule; see `sam`.
      beta: :math:`\beta`, above 0 and at most 1; 1 perturbs all weights.
      gamma: :math:`\gamma`, above 0 and at most 1; 1 keeps all examples and needs neither `losses_fn` nor `examples`.
      seed: Seed of the subsets of the weights.
      mask: Which parameters are perturbed; see `sam`.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose `update` needs `params` and `grad_fn`; see `sam`. If `gamma` is
      below 1, `grad_fn(params, examples)` must accept the indices int32 `[ceil(gamma B)]` of the examples whose mean loss
      it differentiates, and `update` also needs `losses_fn`, a function from parameters to the losses `[B]` of the examples.
      The optional argument `losses`, the losses at `params`, saves a forward pass. The optional argument `group_index` is
      folded into the key, so that each group in m-sharpness draws its own subset.

    Raises:
      ValueError: `rho` is negative or not finite, `beta` or `gamma` is out of range, or `losses_fn` is missing; otherwise as
        for `sam`.
      TypeError: As for `sam`; also if `gamma` is injected, which must be in `static_args` of `optax.inject_hyperparams`.

    References:
      Du et al., `Efficient Sharpness-aware Minimization for Improved Training of Neural Networks
      <https://arxiv.org/abs/2110.03141>`_, 2022.
    """
    arguments.check_number('beta', beta, above=0, at_most=1)
    if isinstance(gamma, jax.Array):
        raise errors.InputTypeError(
            "gamma determines shapes: wrap esam as inject_hyperparams(esam, static_args=('gamma', 'mask'))"
        )
    arguments.check_number('gamma', gamma, above=0, at_most=1)
    arguments.check_seed(seed)

    def perturb_subset(inputs: UpdateInputs) -> ascent.AscentResult:
        subset = random_trees.draw(
            inputs.params,
            random_trees.key_of(seed, inputs.count, inputs.extra_args.get('group_index', 0)),
            lambda key, w: jax.random.bernoulli(key, jnp.asarray(beta, jnp.float32), w.shape),
        )

        def sparse_ball(params: optax.Params, direction: optax.Updates) -> optax.Updates:
            unit = neighborhoods.ball(params, direction)
            return jax.tree.map(lambda u, b: jnp.where(b, u / jnp.asarray(beta, u.dtype), 0), unit, subset)

        grad_fn = inputs.grad_fn if gamma == 1 else _selective_grad_fn(inputs, gamma)
        return inputs.ascend(grad_fn, neighborhood=sparse_ball)

    return sharpness_aware('esam', rho, mask, perturb_subset)


def _selective_grad_fn(inputs: UpdateInputs, gamma: float) -> ascent.GradientFunction:
    """Returns the gradient function of the mean loss of the examples whose loss increased most."""
    losses_fn, losses = (inputs.extra_args.get(name) for name in ('losses_fn', 'losses'))
    if losses_fn is None:
        raise errors.InputError(
            'esam with gamma below 1 needs the loss of each example: call tx.update(..., grad_fn=..., '
            'losses_fn=...) with losses_fn(params) -> [B] and grad_fn(params, examples); or set gamma=1'
        )

    def grad_fn(perturbed: optax.Params) -> optax.Updates:
        unperturbed_losses = losses_fn(inputs.params) if losses is None else losses
        perturbed_losses = losses_fn(perturbed)
        if jnp.ndim(perturbed_losses) != 1 or jnp.shape(unperturbed_losses) != jnp.shape(perturbed_losses):
            raise errors.InputError(
                f'losses_fn must return the loss of each example [B], got shapes {jnp.shape(unperturbed_losses)} at params '
                f'and {jnp.shape(perturbed_losses)} at the perturbed parameters'
            )
        increase = (perturbed_losses - unperturbed_losses).astype(jnp.float32)
        kept = kept_examples(gamma, len(increase))
        return inputs.grad_fn(perturbed, jax.lax.top_k(increase, kept)[1].astype(jnp.int32))

    return grad_fn


def kept_examples(gamma: float, count: int) -> int:
    r"""Returns the number of examples that `esam` keeps out of `count`: :math:`\lceil \gamma B \rceil`, but at least 1."""
    return max(1, math.ceil(round(gamma * count, 6)))  # rounded, since 0.07 * 100 is above 7 in floating point


def rfn_esam(
    rho: optax.ScalarOrSchedule = 0.4, *, beta: float = 0.5, gamma: float = 0.5, seed: int = 0, mask: masks.Mask = None
) -> optax.GradientTransformationExtraArgs:
    """`esam` in a large neighborhood, with the radius of `rfn_sam`.

    Arguments, result and errors are those of `esam`.
    """
    return esam(rho, beta=beta, gamma=gamma, seed=seed, mask=mask)

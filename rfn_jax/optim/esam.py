"""Efficient sharpness-aware minimization (ESAM)."""

import math

import jax
import jax.numpy as jnp
import optax

from rfn_jax.core import errors
from rfn_jax.optim import arguments, ascent, masks, neighborhoods, random_trees
from rfn_jax.optim.sharpness_aware import Call, sharpness_aware


def esam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    beta: float = 0.5,
    gamma: float = 0.5,
    seed: int = 0,
    mask: masks.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SAM that perturbs a random subset of the weights and descends on the examples whose loss rose most.

    *Stochastic weight perturbation*: with :math:`b_i \sim \mathrm{Bernoulli}(\beta)` for each weight, drawn anew at each
    update,

    .. math::
      e = \frac{\rho}{\beta} \, b \odot \frac{g}{\|g\|_2}

    which is the perturbation of `sam` in expectation. *Sharpness-sensitive data selection*: of the B examples of the batch,
    the :math:`\lceil \gamma B \rceil` with the largest rise :math:`L_i(w + e) - L_i(w)` are kept (the first of them in the
    batch where rises are equal), and the gradient is that of their mean loss at :math:`w + e`. The second gradient then
    costs a share :math:`\gamma` of the first, after a forward pass over the batch.

    Args:
      rho: Radius, a number or a schedule; see `sam`.
      beta: :math:`\beta`, above 0 and at most 1; 1 perturbs all weights.
      gamma: :math:`\gamma`, above 0 and at most 1; 1 keeps all examples, and needs neither `losses_fn` nor `examples`.
      seed: Seed of the subsets of the weights.
      mask: Which parameters are perturbed; see `sam`.

    Returns:
      An `optax.GradientTransformationExtraArgs`. Its `update` needs `params` and `grad_fn`; see `sam`. Where `gamma` is
      below 1, `grad_fn(params, examples)` must take the positions int32 `[ceil(gamma B)]` of the examples whose mean loss
      it differentiates, and two more extra arguments are used: `losses_fn`, a function from parameters to the losses `[B]`
      of the examples, and, to save a forward pass, `losses`, the losses at `params`. An extra argument `group_index` is
      folded into the key, so that the groups of m-sharpness draw subsets of their own.

    Raises:
      ValueError: `rho` is negative or not finite, `beta` or `gamma` is out of its range, or `losses_fn` is missing; or as
        `sam`.
      TypeError: As `sam`; also if `gamma` is injected: pass it in `static_args` of `optax.inject_hyperparams`.

    References:
      Du et al., `Efficient Sharpness-aware Minimization for Improved Training of Neural Networks
      <https://arxiv.org/abs/2110.03141>`_, 2022.
    """
    arguments.check_number('beta', beta, above=0, at_most=1)
    if isinstance(gamma, jax.Array):
        raise errors.InputTypeError(
            "gamma fixes shapes: wrap esam as inject_hyperparams(esam, static_args=('gamma', 'mask'))"
        )
    arguments.check_number('gamma', gamma, above=0, at_most=1)
    arguments.check_seed(seed)

    def on_a_subset(call: Call) -> ascent.Climb:
        subset = random_trees.draw(
            call.params,
            (seed, call.count, call.extra_args.get('group_index', 0)),
            lambda key, w: jax.random.bernoulli(key, jnp.asarray(beta, jnp.float32), w.shape),
        )

        def sparse_ball(params: optax.Params, direction: optax.Updates) -> optax.Updates:
            unit = neighborhoods.ball(params, direction)
            return jax.tree.map(lambda u, b: jnp.where(b, u / jnp.asarray(beta, u.dtype), 0), unit, subset)

        grad_fn = call.grad_fn if gamma == 1 else _gradient_of_risen(call, gamma)
        return call.climb(grad_fn, neighborhood=sparse_ball)

    return sharpness_aware('esam', rho, mask, on_a_subset)


def _gradient_of_risen(call: Call, gamma: float) -> ascent.GradientFunction:
    """The gradient of the mean loss of the examples whose loss rose most."""
    losses_fn, losses = (call.extra_args.get(name) for name in ('losses_fn', 'losses'))
    if losses_fn is None:
        raise errors.InputError(
            'esam with gamma below 1 needs the losses of the examples: call tx.update(..., grad_fn=..., '
            'losses_fn=...) with losses_fn(params) -> [B] and grad_fn(params, examples); or set gamma=1'
        )

    def gradient(perturbed: optax.Params) -> optax.Updates:
        before = losses_fn(call.params) if losses is None else losses
        after = losses_fn(perturbed)
        if jnp.ndim(after) != 1 or jnp.shape(before) != jnp.shape(after):
            raise errors.InputError(
                f'losses_fn must return the loss of each example [B], got shapes {jnp.shape(before)} at params and '
                f'{jnp.shape(after)} at the perturbed parameters'
            )
        rise = (after - before).astype(jnp.float32)
        kept = kept_examples(gamma, len(rise))
        return call.grad_fn(perturbed, jax.lax.top_k(rise, kept)[1].astype(jnp.int32))

    return gradient


def kept_examples(gamma: float, count: int) -> int:
    r"""How many of `count` examples `esam` keeps, :math:`\lceil \gamma B \rceil` and at least 1."""
    return max(1, math.ceil(round(gamma * count, 6)))  # rounded, since 0.07 * 100 is above 7 in floating point


def rfn_esam(
    rho: optax.ScalarOrSchedule = 0.4, *, beta: float = 0.5, gamma: float = 0.5, seed: int = 0, mask: masks.Mask = None
) -> optax.GradientTransformationExtraArgs:
    """`esam` in a large neighborhood: the radius of `rfn_sam`.

    Arguments, result and errors are those of `esam`.
    """
    return esam(rho, beta=beta, gamma=gamma, seed=seed, mask=mask)

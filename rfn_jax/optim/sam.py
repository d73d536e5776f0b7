"""Sharpness-aware minimisation in a large neighbourhood, as an optax gradient transformation."""

import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from optax import tree_utils

from rfn_jax.core import numerics


class RfnSamState(NamedTuple):
    """State of `rfn_sam`.

    Attributes:
      count: Number of updates so far, int32; it saturates. The argument of a `rho` schedule.
    """

    count: chex.Array


def rfn_sam(
    rho: optax.ScalarOrSchedule = 0.4,
    *,
    mask: Any | Callable[[optax.Params], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Replaces the gradient by the gradient at the worst point of a neighbourhood (RFN, also called l-SAM).

    For weights :math:`w` and their gradient :math:`g = \nabla L(w)`, which it receives as updates, it returns

    .. math::
      \nabla L\left(w + \rho \frac{g}{\|g\|_2}\right)

    where the norm runs over all perturbed parameters together, in float32 whatever their type. With the usual
    :math:`\rho = 0.05` this is SAM; the large :math:`\rho = 0.4`, for the whole schedule, is what makes surrogates whose
    adversarial examples transfer. Where :math:`g = 0` the perturbation is zero and every value stays finite.

    Each `update` evaluates one more gradient, so a step costs about two of SGD. Batch statistics, step counters and
    schedules move once a step.

    Args:
      rho: Radius of the neighbourhood, a number at least 0 or an optax schedule of the number of updates. 0 gives the
        gradient at `params`, at the price of a second evaluation. A good `rho` depends on the batch size, on the mask
        and on the parametrisation: note all of them beside it.
      mask: Which parameters are perturbed: a pytree of booleans with the structure of `params` (or a prefix of it), or
        a function that makes one from `params`. None perturbs all. The others keep their values during the ascent and do
        not count in the norm; all of them get the gradient at the perturbed point.

    Returns:
      An `optax.GradientTransformationExtraArgs`. Its `update` needs `params` and the keyword argument `grad_fn`, a
      function from parameters to the gradient of the same loss on the same batch; other extra arguments are ignored.
      `init` accepts arrays and `jax.ShapeDtypeStruct`.

    Raises:
      ValueError: At construction, `rho` is negative or not finite; at `update`, `params` or `grad_fn` is missing, or
        `grad_fn` returns something else than a gradient of `params`.
      TypeError: `rho` is neither a number nor a function, or `mask` holds something else than booleans; or the updates
        have holes from `optax.masked` or `optax.partition`.

    Example:
      >>> import jax, jax.numpy as jnp, optax, rfn_jax
      >>> loss_fn = lambda params: jnp.sum((params['w'] - 1.0) ** 2)
      >>> tx = optax.chain(rfn_jax.rfn_sam(rho=0.4), optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))
      >>> params = {'w': jnp.zeros(3)}
      >>> opt_state = tx.init(params)
      >>> for _ in range(2):
      ...     grads = jax.grad(loss_fn)(params)
      ...     updates, opt_state = tx.update(grads, opt_state, params, grad_fn=jax.grad(loss_fn))
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss_fn(params) < 1.5)
      True

    References:
      Gubri et al., `Going Further: Flatness at the Rescue of Early Stopping for Adversarial Example Transferability
      <https://arxiv.org/abs/2304.02688>`_, 2023.

      Foret et al., `Sharpness-Aware Minimization for Efficiently Improving Generalization
      <https://arxiv.org/abs/2010.01412>`_, 2021.

    .. note:: Composition with other transformations of optax.

      *First in the chain.* `rfn_sam` throws away the size of what is upstream and keeps its direction. A gradient clip
      before it does nothing, weight decay before it only bends the ascent, and a whole optimiser before it makes the
      chain *ascend*, without an error. `optax.chain(rfn_sam(...), clip, add_decayed_weights, sgd)` is right.

      *Always in a chain.* `optax.chain` hands `grad_fn` to the links that want it, and drops it for the rest;
      `flax.training.train_state.TrainState.apply_gradients` does not pass it on: call `tx.update` yourself.

      ==========================================  ===============================================================
      wrapper                                     right composition
      ==========================================  ===============================================================
      `inject_hyperparams`                        `inject_hyperparams(rfn_sam, static_args='mask')(rho=...)`, or
                                                  around the whole chain
      `MultiSteps(inner, k)`                      `chain(rfn_sam(), MultiSteps(inner, k).gradient_transformation())`
                                                  perturbs by micro-batch (m-sharpness). `MultiSteps(chain(rfn_sam(),
                                                  inner), k)` runs and is wrong, unless `grad_fn` covers all k
                                                  micro-batches: it ascends along their mean and descends along the last
      `masked`, `partition`                       do not wrap `rfn_sam` (TypeError): use its own `mask`, and put
                                                  `masked(...)` or `partition(...)` after it
      `apply_if_finite`                           `chain(rfn_sam(), apply_if_finite(inner, n))`; around the whole
                                                  chain it tests the gradient at `params` only
      `conditionally_transform`                   works: the ascent is really skipped
      `contrib.schedule_free`                     `chain(rfn_sam(), schedule_free(inner, lr))`, or around the whole
                                                  chain
      `lookahead`, `flatten`                      do not work around it (they drop or reshape what `grad_fn` needs)
      `contrib.sam`                               not together: it is the same method
      ==========================================  ===============================================================

      *Under jit.* Compile the whole step: `jax.jit(tx.update)` cannot take the function `grad_fn` as an argument.
    """
    _check_rho(rho)
    if not callable(mask) and not all(
        hasattr(leaf, 'dtype') or isinstance(leaf, bool) for leaf in jax.tree.leaves(mask)
    ):
        raise TypeError(f'mask must be a pytree of booleans or a function that makes one from params, got {mask!r}')

    def init_fn(params: optax.Params) -> RfnSamState:
        del params
        return RfnSamState(count=jnp.zeros((), jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: RfnSamState,
        params: optax.Params | None = None,
        *,
        grad_fn: Callable[[optax.Params], optax.Updates] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, RfnSamState]:
        del extra_args
        _check_update(updates, params, grad_fn)
        ascent = updates if mask is None else _keep_masked(updates, mask(params) if callable(mask) else mask)
        radius = rho(state.count) if callable(rho) else rho
        norm = numerics.tree_norm(ascent)
        gradient = grad_fn(jax.tree.map(lambda w, g: _perturb(w, g, norm, radius), params, ascent))
        if jax.tree.structure(gradient) != jax.tree.structure(updates):
            raise ValueError(
                f'grad_fn must return a gradient with the structure of params, {jax.tree.structure(updates)}; it '
                f'returned {jax.tree.structure(gradient)} (jax.value_and_grad and has_aux=True return more than that)'
            )
        return tree_utils.tree_cast_like(gradient, updates), RfnSamState(optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _perturb(w: jax.Array, g: jax.Array, norm: jax.Array, radius: chex.Numeric) -> jax.Array:
    """w + radius g / norm in float32 or better, with the type of w; `radius / norm` alone could leave its range."""
    dtype = jnp.promote_types(w.dtype, jnp.float32)
    return (w.astype(dtype) + radius * numerics.safe_divide(g.astype(dtype), norm.astype(dtype))).astype(w.dtype)


def _keep_masked(updates: optax.Updates, mask: Any) -> optax.Updates:
    """The updates where the mask (a prefix of their tree) is true, zeros elsewhere."""
    return jax.tree.map(
        lambda keep, branch: jax.tree.map(lambda g: jnp.where(keep, g, jnp.zeros_like(g)), branch), mask, updates
    )


def _check_rho(rho: Any) -> None:
    if isinstance(rho, jax.Array) or callable(rho):  # a traced value of inject_hyperparams, or a schedule
        return
    if isinstance(rho, bool) or not isinstance(rho, numbers.Real):
        raise TypeError(f'rho must be a number or an optax schedule, got {rho!r}')
    if not (math.isfinite(rho) and rho >= 0):
        raise ValueError(f'rho must be at least 0 and finite, got {rho!r}')


def _check_update(updates: Any, params: Any, grad_fn: Any) -> None:
    if params is None:
        raise ValueError(
            'rfn_sam needs the parameters: call tx.update(grads, opt_state, params, grad_fn=jax.grad(loss_fn))'
        )
    if grad_fn is None:
        raise ValueError(
            'rfn_sam needs the gradient function: call tx.update(grads, opt_state, params, grad_fn=jax.grad(loss_fn)); '
            'wrappers that take no extra arguments, and TrainState.apply_gradients of Flax, do not pass it on'
        )
    leaves = jax.tree.leaves(updates, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))
    if any(isinstance(leaf, optax.MaskedNode) for leaf in leaves):
        raise TypeError(
            'rfn_sam cannot run inside optax.masked or optax.partition, since grad_fn needs all parameters: put '
            'rfn_sam(mask=...) first in the chain and the masked transformation after it'
        )

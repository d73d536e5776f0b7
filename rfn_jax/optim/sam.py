"""Sharpness-aware minimization (SAM) and its variant with a large neighborhood (RFN), as optax transformations."""

import optax

from rfn_jax.optim import arguments, masks, neighborhoods
from rfn_jax.optim.sharpness_aware import sharpness_aware


def sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    ascent_steps: int = 1,
    norm: str = 'global',
    mask: masks.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Replaces the gradient by the gradient at the worst point of a neighborhood: sharpness-aware minimization.

    For weights :math:`w` and their gradient :math:`g = \nabla L(w)`, which it receives as updates, it returns

    .. math::
      \nabla L\left(w + \rho \frac{g}{\|g\|_2}\right)

    With :math:`K` ascent steps, the perturbation is the sum of :math:`K` steps of length :math:`\rho / K`, each along the
    gradient at the point that the previous step reached, so that its length is at most :math:`\rho`.

    The norm is computed in float32 whatever the type of the parameters. If :math:`g = 0`, the perturbation is zero. If
    :math:`g` or the radius is not finite, the perturbation is skipped; if the gradient at the perturbed point is not finite,
    zeros are returned instead. `skipped_count` counts both cases, and the returned gradient is always finite.

    Each `update` evaluates `ascent_steps` additional gradients; with a single one, a training step costs about as much as
    two steps of SGD. Keep the parameters in float32 and compute in bfloat16 (set `dtype` in Flax, not `param_dtype`): in
    low-precision parameters a small perturbation is rounded away, which `perturbation_norm` reveals. Batch statistics, step
    counters and schedules advance once per step.

    Args:
      rho: Radius of the neighborhood, a number of at least 0 or an optax schedule of the number of updates. 0 gives the
        gradient at `params`, at the cost of a second evaluation. A good `rho` depends on the batch size, the norm, the mask
        and the parametrization: report all of them along with it.
      ascent_steps: K, at least 1; if it is above 1, the steps run in a `lax.fori_loop`.
      norm: `'global'` for a single ball over all perturbed parameters; `'layer'` for a ball of radius `rho` for each array;
        or `'relative'` for a ball of radius :math:`\rho \|w_l\|_2` for each array.
      mask: Which parameters are perturbed: `'no_biases'`, `'only_normalization'`, `'no_normalization'`, a pytree of
        booleans with the structure of `params` (or a prefix of it), or a function from `params` to such a pytree; all
        parameters by default. The other parameters keep their values during the ascent and do not count in the norm. The
        returned gradient is that at the perturbed point for all parameters.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose state is a `SamState`. Its `update` needs `params` and the keyword
      argument `grad_fn`, a function from parameters to the gradient of the same loss on the same batch; other extra
      arguments are ignored. `init` accepts arrays and `jax.ShapeDtypeStruct`. The docstring of `rfn_sam` explains how to
      combine it with the wrappers of optax.

    Raises:
      ValueError: At construction, `rho` is negative or not finite, `ascent_steps` is below 1, or a name is unknown; at
        `update`, `params` or `grad_fn` is missing, or `grad_fn` does not return a gradient with the structure and shapes of
        `params`.
      TypeError: An argument has the wrong type; or the updates contain `optax.MaskedNode`s, which `optax.masked` and
        `optax.partition` insert.

    References:
      Foret et al., `Sharpness-Aware Minimization for Efficiently Improving Generalization
      <https://arxiv.org/abs/2010.01412>`_, 2021.

      Kim et al., `Exploring the Effect of Multi-step Ascent in Sharpness-Aware Minimization
      <https://arxiv.org/abs/2302.10181>`_, 2023.
    """
    return _sam('sam', rho, ascent_steps, norm, mask)


def rfn_sam(
    rho: optax.ScalarOrSchedule = 0.4, *, ascent_steps: int = 1, norm: str = 'global', mask: masks.Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""Replaces the gradient by the gradient at the worst point of a neighborhood (RFN, also called l-SAM).

    For weights :math:`w` and their gradient :math:`g = \nabla L(w)`, which it receives as updates, it returns

    .. math::
      \nabla L\left(w + \rho \frac{g}{\|g\|_2}\right)

    This is `sam` with a different default for `rho`. The large :math:`\rho = 0.4` in place of 0.05, throughout training, is
    what produces surrogates whose adversarial examples transfer.

    Args:
      rho: Radius of the neighborhood; see `sam`.
      ascent_steps: See `sam`.
      norm: See `sam`.
      mask: See `sam`.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose `update` needs `params` and `grad_fn`; see `sam`.

    Raises:
      ValueError: See `sam`.
      TypeError: See `sam`.

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

      *First in the chain.* `rfn_sam` uses only the direction of the updates that it receives and discards their norm.
      Gradient clipping before it has no effect, weight decay before it only changes the direction of the ascent, and a
      complete optimizer before it makes the chain *ascend* without any error. The correct order is
      `optax.chain(rfn_sam(...), clip, add_decayed_weights, sgd)`.

      *Always in a chain.* `optax.chain` passes `grad_fn` to the transformations that accept it and drops it for the others.
      `flax.training.train_state.TrainState.apply_gradients` does not pass it on: call `tx.update` yourself.

      ==========================================  ===============================================================
      wrapper                                     correct composition
      ==========================================  ===============================================================
      `inject_hyperparams`                        `inject_hyperparams(rfn_sam, static_args='mask')(rho=...)`, or
                                                  around the whole chain. If `rho` is set to a negative value or NaN,
                                                  the perturbation is skipped and counted as such
      `MultiSteps(inner, k)`                      `chain(rfn_sam(), MultiSteps(inner, k).gradient_transformation())`
                                                  perturbs each micro-batch separately (m-sharpness). A schedule
                                                  of `rho` then counts micro-batches: use
                                                  `lambda t: schedule(t // k)`. Averages go inside `MultiSteps`.
                                                  `MultiSteps(chain(rfn_sam(), inner), k)` runs but is wrong unless
                                                  `grad_fn` covers all k micro-batches: it ascends along their mean
                                                  gradient but descends along the gradient of the last one
      `masked`, `partition`                       cannot wrap `rfn_sam` (TypeError): use its own `mask`, and put
                                                  `masked(...)` or `partition(...)` after it
      `apply_if_finite`                           `chain(rfn_sam(), apply_if_finite(inner, n))`; the output of
                                                  `rfn_sam` is always finite
      `conditionally_transform`                   works: the ascent is not computed when it is skipped
      `contrib.schedule_free`                     `chain(rfn_sam(), schedule_free(inner, lr))`, or around the whole
                                                  chain
      `lookahead`, `flatten`                      cannot wrap `rfn_sam`: `lookahead` does not accept `grad_fn`, and
                                                  `flatten` calls it with flat parameters
      `contrib.sam`                               do not combine: it is the same method
      ==========================================  ===============================================================

      *Under jit.* Compile the whole training step: `jax.jit(tx.update)` cannot take the function `grad_fn` as an argument.
    """
    return _sam('rfn_sam', rho, ascent_steps, norm, mask)


def _sam(
    name: str, rho: optax.ScalarOrSchedule, ascent_steps: int, norm: str, mask: masks.Mask
) -> optax.GradientTransformationExtraArgs:
    neighborhood = neighborhoods.from_name(norm)
    arguments.check_integer('ascent_steps', ascent_steps, at_least=1)
    return sharpness_aware(name, rho, mask, lambda inputs: inputs.ascend(neighborhood=neighborhood, steps=ascent_steps))

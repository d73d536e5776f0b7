"""Sharpness-aware minimization (SAM), and its form with a large neighborhood (RFN), as optax transformations."""

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

    With :math:`K` ascent steps the perturbation is made of :math:`K` steps of :math:`\rho / K`, each along the gradient
    where the one before ended, so its length is at most :math:`\rho`.

    The norm is taken in float32 whatever the type of the parameters. Where :math:`g = 0` the perturbation is zero. A
    gradient :math:`g` or radius that is not finite skips the perturbation, and a gradient at the perturbed point that is
    not finite becomes zero; both are counted in `skipped_count`, and what is returned is always finite.

    Each `update` evaluates `ascent_steps` more gradients, so a step costs about two of SGD with one of them. Keep the
    parameters in float32 and compute in bfloat16 (`dtype`, not `param_dtype`, of Flax): in narrow parameters a small
    perturbation is rounded away, which `perturbation_norm` shows. Batch statistics, step
    counters and schedules move once a step.

    Args:
      rho: Radius of the neighborhood, a number at least 0 or an optax schedule of the number of updates. 0 gives the
        gradient at `params`, at the price of a second evaluation. A good `rho` depends on the batch size, the norm, the
        mask and the parametrization: note all of them beside it.
      ascent_steps: K, at least 1; more than 1 runs in a `lax.fori_loop`.
      norm: `'global'`, one ball over all perturbed parameters together; `'layer'`, a ball of radius `rho` for each array;
        or `'relative'`, a ball of radius :math:`\rho \|w_l\|_2` for each array.
      mask: Which parameters are perturbed: `'no_biases'`, `'only_normalization'`, `'no_normalization'`, a pytree of
        booleans with the structure of `params` (or a prefix of it), or a function that makes one from `params`. None
        perturbs all. The others keep their values during the ascent and do not count in the norm; all of them get the
        gradient at the perturbed point.

    Returns:
      An `optax.GradientTransformationExtraArgs`; its state is a `SamState`. Its `update` needs `params` and the keyword
      argument `grad_fn`, a function from parameters to the gradient of the same loss on the same batch; other extra
      arguments are ignored. `init` accepts arrays and `jax.ShapeDtypeStruct`. How it composes with the wrappers of optax
      is in the docstring of `rfn_sam`.

    Raises:
      ValueError: At construction, `rho` is negative or not finite, or `ascent_steps` below 1, or a name is unknown; at
        `update`, `params` or `grad_fn` is missing, or `grad_fn` returns something else than a gradient of `params`.
      TypeError: An argument has the wrong type; or the updates have holes from `optax.masked` or `optax.partition`.

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

    This is `sam` with another default of `rho`: the large :math:`\rho = 0.4` in place of 0.05, for the whole schedule, is
    what makes surrogates whose adversarial examples transfer.

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

      *First in the chain.* `rfn_sam` throws away the size of what is upstream and keeps its direction. A gradient clip
      before it does nothing, weight decay before it only bends the ascent, and a whole optimizer before it makes the
      chain *ascend*, without an error. `optax.chain(rfn_sam(...), clip, add_decayed_weights, sgd)` is right.

      *Always in a chain.* `optax.chain` hands `grad_fn` to the links that want it, and drops it for the rest;
      `flax.training.train_state.TrainState.apply_gradients` does not pass it on: call `tx.update` yourself.

      ==========================================  ===============================================================
      wrapper                                     right composition
      ==========================================  ===============================================================
      `inject_hyperparams`                        `inject_hyperparams(rfn_sam, static_args='mask')(rho=...)`, or
                                                  around the whole chain. A `rho` that is set to a negative value or
                                                  NaN skips the perturbation, and is counted
      `MultiSteps(inner, k)`                      `chain(rfn_sam(), MultiSteps(inner, k).gradient_transformation())`
                                                  perturbs by micro-batch (m-sharpness). `MultiSteps(chain(rfn_sam(),
                                                  inner), k)` runs and is wrong, unless `grad_fn` covers all k
                                                  micro-batches: it ascends along their mean and descends along the last.
                                                  Schedules of `rho` count micro-batches: `lambda t: schedule(t // k)`;
                                                  averages go inside `MultiSteps`
      `masked`, `partition`                       do not wrap `rfn_sam` (TypeError): use its own `mask`, and put
                                                  `masked(...)` or `partition(...)` after it
      `apply_if_finite`                           `chain(rfn_sam(), apply_if_finite(inner, n))`; what comes out of
                                                  `rfn_sam` is finite already
      `conditionally_transform`                   works: the ascent is really skipped
      `contrib.schedule_free`                     `chain(rfn_sam(), schedule_free(inner, lr))`, or around the whole
                                                  chain
      `lookahead`, `flatten`                      do not work around it (they drop or reshape what `grad_fn` needs)
      `contrib.sam`                               not together: it is the same method
      ==========================================  ===============================================================

      *Under jit.* Compile the whole step: `jax.jit(tx.update)` cannot take a plain function `grad_fn` as an argument.
    """
    return _sam('rfn_sam', rho, ascent_steps, norm, mask)


def _sam(
    method: str, rho: optax.ScalarOrSchedule, ascent_steps: int, norm: str, mask: masks.Mask
) -> optax.GradientTransformationExtraArgs:
    neighborhood = neighborhoods.named(norm)
    arguments.check_integer('ascent_steps', ascent_steps, at_least=1)
    return sharpness_aware(method, rho, mask, lambda call: call.climb(neighborhood=neighborhood, steps=ascent_steps))

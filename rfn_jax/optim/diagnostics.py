"""Metrics of a sharpness-aware minimizer, for logging."""

import jax
import optax

from rfn_jax.core import errors
from rfn_jax.optim import ascent, states


def diagnostics(opt_state: optax.OptState) -> dict[str, jax.Array]:
    """Returns metrics of the last update of the sharpness-aware minimizer in the state of an optimizer.

    Args:
      opt_state: State of an optimizer, in which chains and wrappers may be nested to any depth; it may be traced by `jit`.

    Returns:
      The scalars `gradient_norm`, `perturbation_norm`, `ascent_count` and `skipped_count` of the `SamState`; an empty
      dict if there is no sharpness-aware minimizer, as in plain SGD.

    Raises:
      InputError: There is more than one sharpness-aware minimizer.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from rfn_jax import optim
      >>> loss_fn = lambda w: jnp.sum(w**2)
      >>> tx, w = optax.chain(optim.rfn_sam(0.4), optax.sgd(0.1)), jnp.ones(4)
      >>> _, opt_state = tx.update(jax.grad(loss_fn)(w), tx.init(w), w, grad_fn=jax.grad(loss_fn))
      >>> round(float(optim.diagnostics(opt_state)['perturbation_norm']), 4)
      0.4
    """
    found = states.find_states(opt_state, ascent.SamState)
    if len(found) > 1:
        raise errors.InputError(f'the optimizer state must hold one sharpness-aware minimizer, but holds {len(found)}')
    return {name: value for state in found for name, value in state._asdict().items() if name != 'count'}

"""Checks of what a user gives a minimizer: at construction, and at every trace of `update`.

Arrays, which `optax.inject_hyperparams` makes of numbers, pass unseen.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import optax

from rfn_jax.core import checks, errors

GradFn = TypeVar('GradFn', bound=Callable[..., Any])


def check_number(name: str, value: Any, **bounds: float) -> None:
    """Checks a hyperparameter against its range, as `checks.number` does.

    Raises:
      InputError: It is not a finite number, or out of its range.
    """
    if not isinstance(value, jax.Array):
        checks.number(name, value, **bounds)


def check_integer(name: str, value: Any, **bounds: int) -> None:
    """Checks an integer against its range, as `checks.integer` does.

    Raises:
      InputError: It is not an integer, or out of its range.
    """
    if not isinstance(value, jax.Array):
        checks.integer(name, value, **bounds)


def check_rho(rho: Any) -> None:
    """Checks a radius: a number of at least 0, or a schedule.

    Raises:
      InputTypeError: It is neither.
      InputError: It is negative or not finite.
    """
    if callable(rho):
        return
    try:
        check_number('rho', rho, at_least=0)
    except errors.InputTypeError:
        raise errors.InputTypeError(
            f'rho must be a finite number at least 0 or a schedule (a function of the number of updates), got {rho!r}'
        ) from None


def check_seed(seed: Any) -> None:
    """Checks a seed of 32 bits.

    Raises:
      InputError: It is not an integer, or out of its range.
    """
    check_integer('seed', seed, at_least=0, at_most=2**31 - 1)


def check_update(method: str, updates: optax.Updates, params: optax.Params | None, grad_fn: GradFn | None) -> GradFn:
    """Checks what `update` of a minimizer was called with.

    Returns:
      `grad_fn`.

    Raises:
      InputError: `params` or `grad_fn` is missing.
      InputTypeError: The updates have holes from `optax.masked` or `optax.partition`.
    """
    call = 'call tx.update(grads, opt_state, params, grad_fn=jax.grad(loss_fn))'
    if params is None:
        raise errors.InputError(f'{method} needs the parameters: {call}')
    if grad_fn is None:
        raise errors.InputError(
            f'{method} needs the gradient function: {call}; wrappers that take no extra arguments, and '
            'TrainState.apply_gradients of Flax, do not pass it on'
        )
    leaves = jax.tree.leaves(updates, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))
    if any(isinstance(leaf, optax.MaskedNode) for leaf in leaves):
        raise errors.InputTypeError(
            f'{method} cannot run inside optax.masked or optax.partition, since grad_fn needs all parameters: put '
            f'{method}(mask=...) first in the chain and the masked transformation after it'
        )
    return grad_fn

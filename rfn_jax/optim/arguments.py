"""Checks of the arguments of minimizers, at construction and at every trace of `update`.

Arrays are not checked, since `optax.inject_hyperparams` turns numbers into arrays that may be traced.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import optax

from rfn_jax.core import checks, errors

GradFn = TypeVar('GradFn', bound=Callable[..., Any])


def check_number(name: str, value: Any, **bounds: float) -> None:
    """Checks the type and range of a hyperparameter, as `checks.number` does.

    Raises:
      InputTypeError: It is not a number.
      InputError: It is not finite, or is out of range.
    """
    if not isinstance(value, jax.Array):
        checks.number(name, value, **bounds)


def check_integer(name: str, value: Any, **bounds: int) -> None:
    """Checks the type and range of an integer, as `checks.integer` does.

    Raises:
      InputTypeError: It is not an integer.
      InputError: It is out of range.
    """
    if not isinstance(value, jax.Array):
        checks.integer(name, value, **bounds)


def check_rho(rho: Any) -> None:
    """Checks that a radius is a number of at least 0 or a schedule.

    Raises:
      InputTypeError: It is neither a number nor a schedule.
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
    """Checks that a seed is an integer from 0 to 2^31 - 1.

    Raises:
      InputTypeError: It is not an integer.
      InputError: It is out of range.
    """
    check_integer('seed', seed, at_least=0, at_most=2**31 - 1)


def check_update(name: str, updates: optax.Updates, params: optax.Params | None, grad_fn: GradFn | None) -> GradFn:
    """Checks the arguments of the `update` function of a minimizer.

    Returns:
      `grad_fn`.

    Raises:
      InputError: `params` or `grad_fn` is missing.
      InputTypeError: The updates contain `optax.MaskedNode`s, which `optax.masked` and `optax.partition` insert.
    """
    call = 'call tx.update(grads, opt_state, params, grad_fn=jax.grad(loss_fn))'
    if params is None:
        raise errors.InputError(f'{name} needs the parameters: {call}')
    if grad_fn is None:
        raise errors.InputError(
            f'{name} needs the gradient function: {call}; wrappers that accept no extra arguments, and '
            "Flax's TrainState.apply_gradients, do not pass it on"
        )
    leaves = jax.tree.leaves(updates, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))
    if any(isinstance(leaf, optax.MaskedNode) for leaf in leaves):
        raise errors.InputTypeError(
            f'{name} cannot run inside optax.masked or optax.partition, since grad_fn needs all parameters: put '
            f'{name}(mask=...) first in the chain and the masked transformation after it'
        )
    return grad_fn

"""Averages of the weights along training, as optax transformations that go last in the chain."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from rfn_jax.core import errors, numerics
from rfn_jax.optim import arguments, states


class AverageState(NamedTuple):
    """State of `swa` and `ema`.

    Attributes:
      count: Number of updates so far, int32; it saturates.
      average_count: Number of weight sets in the average, int32; 0 while the average is the latest weights.
      average: The average, float32 or better; read it with `average_params`.
    """

    count: jax.Array  # type: ignore[assignment]  # hides the method of tuples, as in the states of optax
    average_count: jax.Array
    average: optax.Params


def swa(start: int = 0, *, every: int = 1) -> optax.GradientTransformationExtraArgs:
    r"""Keeps the mean of the weights along the last part of training (SWA), and leaves the updates alone.

    Of the weights :math:`w_t` after update :math:`t = 1, 2, \dots` it keeps the mean of those with :math:`t = s + c, s + 2c,
    \dots`, for `start` s and `every` c. Until the first of them the average is the latest weights. It belongs last in the
    chain, since it takes what it receives for the step of the weights. Behind `sam` this is WASAM.

    The batch statistics of the average must be estimated again: `rfn_jax.training.reestimate_batch_stats`.

    Args:
      start: Number of updates before the averaging, at least 0.
      every: Updates from one weight set to the next, at least 1; the paper takes one an epoch.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose state is an `AverageState`.

    Raises:
      TypeError: An argument is not an integer.
      ValueError: An argument is out of its range; at `update`, `params` is missing.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from rfn_jax import optim
      >>> tx = optax.chain(optax.sgd(1.0), optim.swa())
      >>> params = jnp.zeros(())
      >>> state = tx.init(params)
      >>> for gradient in (-1.0, -1.0, -1.0):
      ...     updates, state = tx.update(jnp.asarray(gradient), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> float(params), float(optim.average_params(state))
      (3.0, 2.0)

    References:
      Izmailov et al., `Averaging Weights Leads to Wider Optima and Better Generalization
      <https://arxiv.org/abs/1803.05407>`_, 2018.

      Kaddour et al., `When Do Flat Minima Optimizers Work? <https://arxiv.org/abs/2202.00661>`_, 2022 (WASAM).
    """
    arguments.check_integer('start', start, at_least=0)
    arguments.check_integer('every', every, at_least=1)

    def move(state: AverageState, params: optax.Params) -> AverageState:
        past = state.count + 1 - start
        included = (past > 0) & (past % every == 0)
        number = state.average_count + included.astype(jnp.int32)
        share = jnp.where(number == 0, 1.0, jnp.where(included, 1 / jnp.maximum(number, 1), 0.0))
        average = jax.tree.map(lambda a, w: _blend(a, w, share), state.average, params)
        return AverageState(optax.safe_increment(state.count), number, average)

    return _averaging('swa', move)


def ema(decay: float = 0.999) -> optax.GradientTransformationExtraArgs:
    r"""Keeps an exponential moving average of the weights, and leaves the updates alone.

    .. math:: a_0 = w_0, \qquad a_t = \lambda a_{t-1} + (1 - \lambda) w_t

    It belongs last in the chain. (`optax.ema` averages the updates.)

    Args:
      decay: :math:`\lambda`, from 0 to 1.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose state is an `AverageState`.

    Raises:
      TypeError: `decay` is not a number.
      ValueError: `decay` is out of its range; at `update`, `params` is missing.
    """
    arguments.check_number('decay', decay, at_least=0, at_most=1)

    def move(state: AverageState, params: optax.Params) -> AverageState:
        average = jax.tree.map(lambda a, w: _blend(a, w, 1 - decay), state.average, params)
        return AverageState(optax.safe_increment(state.count), optax.safe_increment(state.average_count), average)

    return _averaging('ema', move)


def average_params(opt_state: optax.OptState) -> optax.Params:
    """The average in the state of an optimizer that has one `swa` or `ema`, float32 or better.

    These are the arrays of the state: copy them before a step that donates it.

    Args:
      opt_state: State of a chain, of any depth.

    Raises:
      InputError: There is no average in it, or more than one.
    """
    found = states.of_kind(opt_state, AverageState)
    if len(found) != 1:
        raise errors.InputError(f'the optimizer state must hold one average of swa() or ema(), it holds {len(found)}')
    return found[0].average


def _averaging(
    method: str, move: Callable[[AverageState, optax.Params], AverageState]
) -> optax.GradientTransformationExtraArgs:
    def init_fn(params: optax.Params) -> AverageState:
        # Two arrays: a state that holds one twice cannot be donated.
        count, average_count = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return AverageState(count, average_count, jax.tree.map(_wide_copy, params))

    def update_fn(
        updates: optax.Updates, state: AverageState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, AverageState]:
        del extra_args
        if params is None:
            raise errors.InputError(f'{method} needs the parameters: call tx.update(grads, opt_state, params)')
        return updates, move(state, optax.apply_updates(params, updates))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _wide_copy(w: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    """A copy, so that donating the parameters leaves the average alone; zeros where there is a shape only."""
    dtype = numerics.wide_dtype(w.dtype)
    return jnp.zeros_like(w, dtype=dtype) if isinstance(w, jax.ShapeDtypeStruct) else jnp.array(w, dtype, copy=True)


def _blend(a: jax.Array, w: jax.Array, share: ArrayLike) -> jax.Array:
    return a + jnp.asarray(share, a.dtype) * (w.astype(a.dtype) - a)

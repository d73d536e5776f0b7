"""Averages of the weights during training, as optax transformations that go last in a chain."""

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
      average_count: Number of weight vectors in the average, int32; 0 as long as the average is just the latest weights.
      average: The average, in float32 (float64 for float64 parameters); read it with `average_params`.
    """

    count: jax.Array  # type: ignore[assignment]  # hides the method of tuples, as in the states of optax
    average_count: jax.Array
    average: optax.Params


def swa(start: int = 0, *, every: int = 1) -> optax.GradientTransformationExtraArgs:
    r"""Keeps the mean of the weights over the last part of training (SWA); the updates pass through unchanged.

    Of the weights :math:`w_t` after update :math:`t = 1, 2, \dots`, it averages those with :math:`t = s + c, s + 2c, \dots`,
    where :math:`s` is `start` and :math:`c` is `every`. Until the first of them, the average is the latest weights. `swa`
    must come last in the chain, since it takes the updates that it receives for the change of the weights. After `sam`, it
    gives WASAM.

    Batch statistics must be estimated again for the averaged weights: see `rfn_jax.training.reestimate_batch_stats`.

    Args:
      start: Number of updates before averaging begins, at least 0.
      every: Interval between averaged weights in updates, at least 1; the paper averages once per epoch.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose state is an `AverageState`.

    Raises:
      TypeError: An argument is not an integer.
      ValueError: An argument is out of range; at `update`, `params` is missing.

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

    def update_average(state: AverageState, params: optax.Params) -> AverageState:
        updates_since_start = state.count + 1 - start
        included = (updates_since_start > 0) & (updates_since_start % every == 0)
        average_count = state.average_count + included.astype(jnp.int32)
        fraction = jnp.where(average_count == 0, 1.0, jnp.where(included, 1 / jnp.maximum(average_count, 1), 0.0))
        average = jax.tree.map(lambda a, w: _interpolate(a, w, fraction), state.average, params)
        return AverageState(optax.safe_increment(state.count), average_count, average)

    return _averaging_transformation('swa', update_average)


def ema(decay: float = 0.999) -> optax.GradientTransformationExtraArgs:
    r"""Keeps an exponential moving average of the weights; the updates pass through unchanged.

    .. math:: a_0 = w_0, \qquad a_t = \lambda a_{t-1} + (1 - \lambda) w_t

    It must come last in the chain. (`optax.ema`, in contrast, averages the updates.)

    Args:
      decay: :math:`\lambda`, from 0 to 1.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose state is an `AverageState`.

    Raises:
      TypeError: `decay` is not a number.
      ValueError: `decay` is out of range; at `update`, `params` is missing.
    """
    arguments.check_number('decay', decay, at_least=0, at_most=1)

    def update_average(state: AverageState, params: optax.Params) -> AverageState:
        average = jax.tree.map(lambda a, w: _interpolate(a, w, 1 - decay), state.average, params)
        return AverageState(optax.safe_increment(state.count), optax.safe_increment(state.average_count), average)

    return _averaging_transformation('ema', update_average)


def average_params(opt_state: optax.OptState) -> optax.Params:
    """Returns the average in the state of an optimizer with one `swa` or `ema`; see `AverageState`.

    The arrays are those of the state itself, so copy them before a step that donates the state.

    Args:
      opt_state: State of an optimizer, in which chains and wrappers may be nested to any depth.

    Raises:
      InputError: The state holds no average, or more than one.
    """
    found = states.find_states(opt_state, AverageState)
    if len(found) != 1:
        raise errors.InputError(f'the optimizer state must hold one average of swa() or ema(), but holds {len(found)}')
    return found[0].average


def _averaging_transformation(
    name: str, update_average: Callable[[AverageState, optax.Params], AverageState]
) -> optax.GradientTransformationExtraArgs:
    def init_fn(params: optax.Params) -> AverageState:
        # Two separate arrays, since a state that holds the same array twice cannot be donated.
        count, average_count = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return AverageState(count, average_count, jax.tree.map(_wide_copy, params))

    def update_fn(
        updates: optax.Updates, state: AverageState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, AverageState]:
        del extra_args
        if params is None:
            raise errors.InputError(f'{name} needs the parameters: call tx.update(grads, opt_state, params)')
        return updates, update_average(state, optax.apply_updates(params, updates))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _wide_copy(w: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    """Returns a copy, which survives the donation of the parameters, or zeros if only a shape is given."""
    dtype = numerics.wide_dtype(w.dtype)
    return jnp.zeros_like(w, dtype=dtype) if isinstance(w, jax.ShapeDtypeStruct) else jnp.array(w, dtype, copy=True)


def _interpolate(a: jax.Array, w: jax.Array, fraction: ArrayLike) -> jax.Array:
    return a + jnp.asarray(fraction, a.dtype) * (w.astype(a.dtype) - a)

"""The common structure of all sharpness-aware minimizers: argument checks, state updates, and a slot for the method."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, Self, TypedDict, TypeVar, Unpack, overload

import jax
import optax
from jax.typing import ArrayLike

from rfn_jax.optim import arguments, ascent, masks, neighborhoods


class AscentOptions(TypedDict, total=False):
    """Options of `ascent.ascend`; see there."""

    neighborhood: neighborhoods.Neighborhood
    direction: optax.Updates | None
    steps: ArrayLike


class MethodState(Protocol):
    """State of a method that keeps more than a `SamState`: a NamedTuple with the field `sam`."""

    @property
    def sam(self) -> ascent.SamState:
        """State that every minimizer has."""

    def _replace(self, *, sam: ascent.SamState) -> Self: ...


State = TypeVar('State', bound=MethodState)


class UpdateInputs(NamedTuple):
    """Inputs of a method at one update.

    Attributes:
      params: The parameters w.
      updates: Their gradient g.
      grad_fn: Gradient function of parameters.
      radius: Radius at this update.
      count: Number of updates before this one.
      mask: Which parameters are perturbed.
      extra_args: The remaining keyword arguments of `update`.
    """

    params: optax.Params
    updates: optax.Updates
    grad_fn: Callable[..., optax.Updates]
    radius: ArrayLike
    count: jax.Array  # type: ignore[assignment]  # hides the method of tuples
    mask: masks.Mask
    extra_args: Mapping[str, Any]

    def ascend(
        self, grad_fn: ascent.GradientFunction | None = None, **options: Unpack[AscentOptions]
    ) -> ascent.AscentResult:
        """Performs the ascent from w, by default along g in a single ball; see `ascent.ascend` for the options."""
        grad_fn = self.grad_fn if grad_fn is None else grad_fn
        return ascent.ascend(grad_fn, self.params, self.updates, self.radius, mask=self.mask, **options)


@overload
def sharpness_aware(
    name: str, rho: optax.ScalarOrSchedule, mask: masks.Mask, method: Callable[[UpdateInputs], ascent.AscentResult]
) -> optax.GradientTransformationExtraArgs: ...
@overload
def sharpness_aware(
    name: str,
    rho: optax.ScalarOrSchedule,
    mask: masks.Mask,
    method: Callable[[UpdateInputs, State], tuple[ascent.AscentResult, State]],
    *,
    init_state: Callable[[ascent.SamState, optax.Params], State],
) -> optax.GradientTransformationExtraArgs: ...
def sharpness_aware(
    name: str,
    rho: optax.ScalarOrSchedule,
    mask: masks.Mask,
    method: Callable[..., Any],
    *,
    init_state: Callable[[ascent.SamState, optax.Params], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Builds a minimizer from the function that implements its method.

    Args:
      name: Name of the method, for messages.
      rho: Radius, a number or a schedule; see `sam`.
      mask: Which parameters are perturbed; see `sam`.
      method: Function from `UpdateInputs` to the `ascent.AscentResult` whose gradient the minimizer returns if it is finite.
        If `init_state` is given: function from `UpdateInputs` and the state to the result and the next state, whose field
        `sam` is then updated here.
      init_state: Function from an initial `SamState` and the parameters to the initial state, a NamedTuple with the field
        `sam`. Not given for a method whose state is just the `SamState`.

    Returns:
      An `optax.GradientTransformationExtraArgs`; see `sam`.

    Raises:
      ValueError: `rho` is negative or not finite, or the mask is an unknown name.
      TypeError: `rho` or the mask has the wrong type.
    """
    arguments.check_rho(rho)
    masks.check_mask(mask)

    def init_fn(params: optax.Params) -> Any:
        sam = ascent.initial_state()
        return sam if init_state is None else init_state(sam, params)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        grad_fn: Callable[..., optax.Updates] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        checked_grad_fn = arguments.check_update(name, updates, params, grad_fn)
        sam = state if init_state is None else state.sam
        radius = rho(sam.count) if callable(rho) else rho
        inputs = UpdateInputs(params, updates, checked_grad_fn, radius, sam.count, mask, extra_args)
        if init_state is None:
            return ascent.finish_update(sam, method(inputs))
        result, next_state = method(inputs, state)
        descent_gradient, sam = ascent.finish_update(sam, result)
        return descent_gradient, next_state._replace(sam=sam)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)

"""The frame of all sharpness-aware minimizers: what is checked, what is noted, and what a method fills in."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, Self, TypedDict, TypeVar, Unpack, overload

import jax
import optax
from jax.typing import ArrayLike

from rfn_jax.optim import arguments, ascent, masks, neighborhoods


class ClimbOptions(TypedDict, total=False):
    """Options of `ascent.climb`, which says what they are."""

    neighborhood: neighborhoods.Neighborhood
    direction: optax.Updates | None
    steps: ArrayLike


class Memory(Protocol):
    """What a method with memory keeps: a NamedTuple with the field `sam`."""

    @property
    def sam(self) -> ascent.SamState:
        """What every minimizer keeps."""

    def _replace(self, *, sam: ascent.SamState) -> Self: ...


State = TypeVar('State', bound=Memory)


class Call(NamedTuple):
    """What a method knows at an update.

    Attributes:
      params: The parameters w.
      updates: Their gradient g.
      grad_fn: Gradient function of parameters.
      radius: The radius of this update.
      count: Number of updates before it.
      mask: Which parameters are perturbed.
      extra_args: Further arguments of `update`.
    """

    params: optax.Params
    updates: optax.Updates
    grad_fn: Callable[..., optax.Updates]
    radius: ArrayLike
    count: jax.Array  # type: ignore[assignment]  # hides the method of tuples
    mask: masks.Mask
    extra_args: Mapping[str, Any]

    def climb(self, grad_fn: ascent.GradientFunction | None = None, **options: Unpack[ClimbOptions]) -> ascent.Climb:
        """The climb from w, by default along g in one ball; `ascent.climb` has the options."""
        grad_fn = self.grad_fn if grad_fn is None else grad_fn
        return ascent.climb(grad_fn, self.params, self.updates, self.radius, mask=self.mask, **options)


@overload
def sharpness_aware(
    method: str, rho: optax.ScalarOrSchedule, mask: masks.Mask, gradient: Callable[[Call], ascent.Climb]
) -> optax.GradientTransformationExtraArgs: ...
@overload
def sharpness_aware(
    method: str,
    rho: optax.ScalarOrSchedule,
    mask: masks.Mask,
    gradient: Callable[[Call, State], tuple[ascent.Climb, State]],
    *,
    memory: Callable[[ascent.SamState, optax.Params], State],
) -> optax.GradientTransformationExtraArgs: ...
def sharpness_aware(
    method: str,
    rho: optax.ScalarOrSchedule,
    mask: masks.Mask,
    gradient: Callable[..., Any],
    *,
    memory: Callable[[ascent.SamState, optax.Params], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """A minimizer, from the one function that is its method.

    Args:
      method: Its name, for messages.
      rho: Radius, a number or a schedule; see `sam`.
      mask: Which parameters are perturbed; see `sam`.
      gradient: The method: from a `Call` to the `ascent.Climb` whose gradient the minimizer returns where it is finite. With
        memory, from a `Call` and the state to the climb and the next state, in which `sam` is filled in here.
      memory: From a fresh `SamState` and the parameters to the first state, a NamedTuple with the field `sam`; None for a
        method whose state is the `SamState` alone.

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
        return sam if memory is None else memory(sam, params)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        grad_fn: Callable[..., optax.Updates] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        checked = arguments.check_update(method, updates, params, grad_fn)
        sam = state if memory is None else state.sam
        radius = rho(sam.count) if callable(rho) else rho
        call = Call(params, updates, checked, radius, sam.count, mask, extra_args)
        if memory is None:
            return ascent.settle(sam, gradient(call))
        climbed, after = gradient(call, state)
        chosen, sam = ascent.settle(sam, climbed)
        return chosen, after._replace(sam=sam)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)

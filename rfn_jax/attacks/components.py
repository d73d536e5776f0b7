"""The components that `composition.py` combines by name into attacks such as `'mi+di+ti+sgm'`.

Each component is a function that maps the budget and the steps of the attack (a `Frame`) and its own options to the `Parts`
that it adds. `recipes` gives names to the usual compositions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from rfn_jax.attacks import budget, engine, starts
from rfn_jax.attacks.gradients import (
    directions,
    enhanced,
    look_ahead,
    patchwise,
    penalty,
    reverse,
    translation,
    variance,
)
from rfn_jax.attacks.gradients import estimate as estimate_lib
from rfn_jax.attacks.inputs import blocks as blocks_lib
from rfn_jax.attacks.inputs import mixing, resizing, scales, shifts, spectrum
from rfn_jax.attacks.inputs import transforms as transforms_lib
from rfn_jax.attacks.surrogates import ghost, linear_backprop, skip_gradient
from rfn_jax.core import checks, errors, registry

EstimateWrapper = Callable[[estimate_lib.GradientEstimate], estimate_lib.GradientEstimate]


class Frame(NamedTuple):
    """The settings that all components of an attack share.

    Attributes:
      limits: The budget.
      step_size: Length of a step.
      steps: Number of steps.
    """

    limits: budget.Budget
    step_size: float
    steps: int


class Parts(NamedTuple):
    """The parts that a component adds to an attack.

    Attributes:
      smoothing: Transformations that are applied to the gradient before the momentum.
      decay: Decay of the momentum; None for no momentum.
      direction: Replacement for the direction of steepest ascent.
      wrapper: Function that wraps an inner gradient estimate in that of the component.
      level: Nesting level of the component's estimate: it wraps the estimates of lower levels.
      transforms: Input transforms.
      surrogate_transforms: Surrogate transforms.
      start: Where the attack starts.
    """

    smoothing: tuple[optax.GradientTransformation, ...] = ()
    decay: float | None = None
    direction: optax.GradientTransformation | None = None
    wrapper: EstimateWrapper | None = None
    level: int = 0
    transforms: tuple[engine.Transform, ...] = ()
    surrogate_transforms: tuple[engine.SurrogateTransform, ...] = ()
    start: engine.Start | None = None


COMPONENTS: registry.Registry[Parts] = registry.Registry('attack component')


def _component(function: Callable[..., Parts]) -> Callable[..., Parts]:
    COMPONENTS.add(function.__name__.removeprefix('_'), function)
    return function


@_component
def _rs(frame: Frame) -> Parts:
    """Random start (PGD)."""
    del frame
    return Parts(start=starts.uniform_in_ball)


@_component
def _mi(frame: Frame, *, decay: float = 1.0) -> Parts:
    """Momentum."""
    del frame
    return Parts(decay=decay)


@_component
def _ni(frame: Frame, *, decay: float = 1.0) -> Parts:
    """Momentum with look-ahead (Nesterov)."""

    def wrap(inner: estimate_lib.GradientEstimate) -> estimate_lib.GradientEstimate:
        return _scaled_to_values(
            frame, lambda scale: look_ahead.look_ahead(scale * frame.step_size, decay, inner=inner)
        )

    return Parts(decay=decay, wrapper=wrap, level=1)


@_component
def _vt(frame: Frame, *, beta: float = 1.5, neighbors: int = 20, around: str = 'image') -> Parts:
    """Variance tuning with neighbors up to `beta * eps` away."""
    radius = checks.number('beta', beta, above=0) * frame.limits.eps

    def wrap(inner: estimate_lib.GradientEstimate) -> estimate_lib.GradientEstimate:
        return _scaled_to_values(frame, lambda scale: variance.variance_tuned(scale * radius, neighbors, around, inner))

    return Parts(wrapper=wrap, level=4)


@_component
def _pgn(frame: Frame, *, beta: float = 3.0, neighbors: int = 20, balance: float = 0.5) -> Parts:
    """Penalized gradient norm with neighbors up to `beta * eps` away."""
    radius = checks.number('beta', beta, above=0) * frame.limits.eps

    def build(scale: float) -> estimate_lib.GradientEstimate:
        return penalty.penalized_norm(scale * radius, scale * frame.step_size, neighbors, balance=balance)

    return Parts(wrapper=_innermost('pgn', _scaled_to_values(frame, build)), level=3)


@_component
def _emi(frame: Frame, *, samples: int = 11, radius: float = 7.0, decay: float = 1.0) -> Parts:
    """Enhanced momentum: momentum over gradients sampled along the previous gradient."""

    def build(scale: float) -> estimate_lib.GradientEstimate:
        return enhanced.enhanced_momentum(scale * frame.step_size, samples, radius)

    return Parts(decay=decay, wrapper=_innermost('emi', _scaled_to_values(frame, build)), level=2)


@_component
def _rap(
    frame: Frame,
    *,
    radius: float | None = None,
    inner_step_size: float | None = None,
    inner_steps: int = 8,
    late_start: int | None = None,
) -> Parts:
    """Reverse adversarial perturbation; by default as large as the budget, and used after a quarter of the steps."""
    late_start = frame.steps // 4 if late_start is None else late_start
    radius = frame.limits.eps if radius is None else radius
    step_size = radius / inner_steps if inner_step_size is None else inner_step_size

    def wrap(inner: estimate_lib.GradientEstimate) -> estimate_lib.GradientEstimate:
        def build(scale: float) -> estimate_lib.GradientEstimate:
            lengths = scale * radius, scale * step_size
            return reverse.reverse_perturbation(*lengths, inner_steps, late_start=late_start, inner=inner)

        return _scaled_to_values(frame, build)

    return Parts(wrapper=wrap, level=5)


@_component
def _adam(frame: Frame) -> Parts:
    """The direction of Adam."""
    return Parts(direction=optax.chain(optax.scale_by_adam(), directions.steepest(frame.limits.norm)))


@_component
def _pi(frame: Frame, *, amplification: float = 10.0, kernel_size: int = 3) -> Parts:
    """Patch-wise steps."""
    if frame.limits.norm != 'linf':
        raise errors.InputError(f"pi is only defined for the norm 'linf', got {frame.limits.norm!r}")
    return Parts(direction=patchwise.patchwise(frame.step_size, frame.limits.eps, amplification, kernel_size))


@_component
def _ti(frame: Frame, *, size: int = 15, nsig: float = 3.0, kind: str = 'gaussian') -> Parts:
    """Translation invariance by smoothing the gradient with a kernel."""
    del frame
    return Parts(smoothing=(translation.translation_kernel(size, nsig=nsig, kind=kind),))


@_component
def _shift(frame: Frame, *, max_shift: int = 2, copies: int = 1) -> Parts:
    """Translation invariance by random shifts of the image."""
    del frame
    return Parts(transforms=(shifts.random_shift(max_shift, copies=copies),))


@_component
def _di(frame: Frame, *, rate: float = 1.1, probability: float = 0.5, method: str = 'bilinear') -> Parts:
    """Input diversity."""
    del frame
    return Parts(transforms=(resizing.input_diversity(rate, probability, method=method),))


@_component
def _si(frame: Frame, *, copies: int = 5) -> Parts:
    """Scale invariance."""
    del frame
    return Parts(transforms=(scales.scale_copies(copies),))


@_component
def _admix(frame: Frame, *, mixes: int = 3, scales: int = 5, portion: float = 0.2, other_classes: bool = True) -> Parts:
    """Admix, which includes the scale copies."""
    del frame
    return Parts(transforms=(mixing.admix(mixes, scales, portion, other_classes=other_classes),))


@_component
def _ssa(frame: Frame, *, copies: int = 20, rho: float = 0.5, sigma: float | None = None) -> Parts:
    """Spectrum simulation; by default, the standard deviation of the noise is `eps`."""
    sigma = frame.limits.eps if sigma is None else sigma
    transform = spectrum.spectrum_simulation(copies, rho=rho, sigma=sigma)
    if frame.limits.norm == 'linf':
        return Parts(transforms=(transform,))

    def apply(inputs: transforms_lib.Input) -> jax.Array:
        scale = _change_per_value(inputs.images)
        return spectrum.spectrum_simulation(copies, rho=rho, sigma=scale * sigma).apply(inputs)

    return Parts(transforms=(transform._replace(apply=apply),))


@_component
def _bsr(frame: Frame, *, copies: int = 20, blocks: int = 3, max_angle: float = 24.0) -> Parts:
    """Block shuffle and rotation."""
    del frame
    return Parts(transforms=(blocks_lib.block_shuffle_rotate(copies, blocks, max_angle),))


@_component
def _sgm(frame: Frame, *, gamma: float = 0.2) -> Parts:
    """Skip gradient method."""
    del frame
    return Parts(surrogate_transforms=(skip_gradient.skip_gradient(gamma),))


@_component
def _ghost(frame: Frame, *, skip_scale: float = 0.22, dropout: float = 0.0) -> Parts:
    """Ghost networks."""
    del frame
    return Parts(surrogate_transforms=(ghost.ghost_network(skip_scale, dropout),))


@_component
def _linbp(frame: Frame, *, from_layer: str) -> Parts:
    """Linear backpropagation."""
    del frame
    return Parts(surrogate_transforms=(linear_backprop.linear_backprop(from_layer),))


def _change_per_value(images: jax.Array) -> float:
    """By how much each value changes if all values change equally and the change has L2 norm 1."""
    scale: float = images[0].size ** -0.5
    return scale


def _scaled_to_values(
    frame: Frame, build: Callable[[float], estimate_lib.GradientEstimate]
) -> estimate_lib.GradientEstimate:
    """The estimate `build(scale)`, where `scale` turns lengths in the norm of the budget into changes of each value."""
    if frame.limits.norm == 'linf':
        return build(1.0)

    def update(
        grad_fn: estimate_lib.GradFn,
        images: jax.Array,
        state: estimate_lib.State,
        keys: jax.Array,
        step: estimate_lib.Step,
    ) -> tuple[jax.Array, estimate_lib.State]:
        return build(_change_per_value(images)).update(grad_fn, images, state, keys, step)

    return estimate_lib.GradientEstimate(build(1.0).init, update, build(1.0).evaluations)


def _innermost(name: str, estimate: estimate_lib.GradientEstimate) -> EstimateWrapper:
    """A wrapper that returns an estimate which cannot wrap another one."""

    def wrap(inner: estimate_lib.GradientEstimate) -> estimate_lib.GradientEstimate:
        if inner is not estimate_lib.AT_IMAGE:
            raise errors.InputError(f'{name} cannot be combined with another gradient estimate')
        return estimate

    return wrap

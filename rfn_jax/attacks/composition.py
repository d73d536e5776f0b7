"""Attacks composed from components by name: `compose('mi+di+ti+sgm')`."""

from collections.abc import Mapping

import optax

from rfn_jax.attacks import budget, engine, starts
from rfn_jax.attacks import components as components_lib
from rfn_jax.attacks.gradients import directions, estimate
from rfn_jax.core import checks, errors, losses

LOSSES = {'cross_entropy': losses.cross_entropy, 'margin': losses.margin, 'logit': losses.negative_logit}

# The setting of arXiv 2304.02688 and of the LGV code by the same authors: L-infinity, 50 steps of eps/10.
EPS = 4 / 255
STEPS = 50


def compose(
    components: str = '',
    *,
    eps: float = EPS,
    step_size: float | None = None,
    steps: int = STEPS,
    norm: str = 'linf',
    loss: str = 'cross_entropy',
    targeted: bool = False,
    restarts: int = 1,
    chunk_size: int = 1,
    options: Mapping[str, Mapping[str, object]] | None = None,
    name: str | None = None,
) -> engine.GradientAttack:
    """Composes an attack from components, given by name.

    Args:
      components: Names from `COMPONENTS` joined with `+`, such as `'mi+di+ti+sgm'`; empty for plain steps of steepest ascent
        (BIM). Input transforms are applied in the order given. The kernel of `ti` comes before the momentum in any order.
        Gradient estimates are nested: `ni` is innermost, then `emi` or `pgn`, then `vt`, then `rap`. The sizes of
        neighborhoods and the length of the look-ahead are changes per value: with `'l2'`, they are the lengths in the norm
        of the budget, divided by the square root of the number of values of an image.
      eps: Radius of the budget.
      step_size: Length of a step; by default, `eps / 10`.
      steps: Number of steps.
      norm: `'linf'` or `'l2'`.
      loss: `'cross_entropy'`, `'margin'` or `'logit'`.
      targeted: Whether the attack is called with target labels.
      restarts: Number of runs, of which the best is kept for each example.
      chunk_size: How many copies or neighbors are computed together.
      options: Options of the components, by the name of the component, such as `{'di': {'rate': 0.9}}`.
      name: Name of the attack; by default, `components`.

    Returns:
      The attack.

    Raises:
      InputError: A name or an option is unknown, a value is out of range, or two components cannot be combined.
    """
    names = components.split('+') if components else []
    options = {} if options is None else options
    if not all(isinstance(option, Mapping) and 'frame' not in option for option in options.values()):
        raise errors.InputError(f'options must map names of components to mappings of their options, got {options!r}')
    for unknown in options.keys() - set(names):
        raise errors.InputError(f'options are given for {unknown!r}, which is not among the components {components!r}')
    if len(set(names)) < len(names):
        raise errors.InputError(f'each component may appear only once, got {components!r}')
    checks.one_of('loss', loss, LOSSES)
    limits = budget.Budget(eps, norm)
    frame = components_lib.Frame(limits, eps / 10 if step_size is None else step_size, steps)
    parts = [
        components_lib.COMPONENTS.make(component, frame=frame, **options.get(component, {})) for component in names
    ]
    decays = {part.decay for part in parts if part.decay is not None}
    if len(decays) > 1:
        raise errors.InputError(f'components {components!r} ask for momentum with different decays: {sorted(decays)}')
    gradient = estimate.AT_IMAGE
    for part in sorted(parts, key=lambda part: part.level):
        gradient = gradient if part.wrapper is None else part.wrapper(gradient)
    given_directions = [part.direction for part in parts if part.direction is not None]
    if len(given_directions) > 1:
        raise errors.InputError(f'components {components!r} ask for more than one direction')
    preprocessing = [t for part in parts for t in part.smoothing] + [directions.accumulate(decay) for decay in decays]
    return engine.GradientAttack(
        name=name or components or 'bim',
        limits=limits,
        direction=optax.chain(*preprocessing, *(given_directions or [directions.steepest(norm)])),
        step_size=frame.step_size,
        steps=steps,
        loss=LOSSES[loss],
        gradient=gradient,
        transforms=tuple(t for part in parts for t in part.transforms),
        surrogate_transforms=tuple(t for part in parts for t in part.surrogate_transforms),
        start=next((part.start for part in parts if part.start is not None), starts.at_original),
        restarts=restarts,
        targeted=targeted,
        chunk_size=chunk_size,
    )

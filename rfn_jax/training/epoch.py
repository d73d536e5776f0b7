"""One epoch of training: runs its batches through the compiled step and collects the metrics.

Axes: `S` steps of the epoch.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax import data
from rfn_jax.core import errors, numerics, rng, sharding
from rfn_jax.training import programs
from rfn_jax.training import state as state_lib

COUNTERS = ('ascent_count', 'skipped_count')

_norm = jax.jit(numerics.tree_norm)


def run(
    program: programs.Program, state: state_lib.TrainState, loader: data.Loader, epoch: int, *, name: str
) -> tuple[state_lib.TrainState, dict[str, float | None]]:
    """Trains for one epoch; the host waits for the devices only at the end.

    Args:
      program: The compiled step.
      state: The state before the epoch, which is donated.
      loader: The batches; the augmentation uses the same seed as their order.
      epoch: Number of the epoch, from 1.
      name: What to call the run in messages.

    Returns:
      The state after the epoch and the figures of the epoch: the means of the steps' metrics (None if no value is finite),
      the last values of counters, `parameter_norm` after the epoch, and `learning_rate` at its first step.

    Raises:
      RunError: A loss, or the norm of the parameters after the epoch, is not finite.
    """
    key = sharding.replicate_key(rng.key_for(loader.seed, 'augment', epoch), program.mesh)
    history = []
    for batch in loader.epoch(epoch, steps_per_call=program.steps_per_call):
        state, metrics = program.step(state, batch, key)
        history.append(metrics)
    history, norm = jax.device_get((history, _norm(state.params)))
    steps = {name: np.concatenate([np.atleast_1d(metrics[name]) for metrics in history]) for name in history[0]}
    _check_finite(steps['loss'], float(norm), name, epoch, program)
    figures = {name: _finite_mean(values) for name, values in steps.items()}
    for counter in steps.keys() & set(COUNTERS):
        figures[counter] = int(steps[counter][-1])
    figures['parameter_norm'] = float(norm)
    figures['learning_rate'] = float(program.schedule(jnp.int32((epoch - 1) * program.steps_per_epoch)))
    return state, figures


def shorten(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    """Leaves out the figures of the minimizer, so that the others fit on one line."""
    hidden = ('gradient_norm', 'perturbation_norm', *COUNTERS)
    return {name: value for name, value in figures.items() if name not in hidden}


def _finite_mean(values: np.ndarray) -> float | None:
    """Returns the mean of the finite values; None if there are none."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    return float(np.mean(finite)) if finite.size else None


def _check_finite(losses: np.ndarray, norm: float, name: str, epoch: int, program: programs.Program) -> None:
    not_finite = np.flatnonzero(~np.isfinite(losses))
    if not not_finite.size and math.isfinite(norm):
        return
    what, value, step = ('norm of the parameters', norm, len(losses))
    if not_finite.size:
        what, value, step = 'loss', losses[not_finite[0]], not_finite[0] + 1
    raise errors.RunError(
        f'{name}: the {what} is {value} at step {step} of epoch {epoch}; the checkpoints of earlier epochs are kept. Try a '
        f'learning rate below {program.recipe.learning_rate} or other options of the minimizer '
        f'{dict(program.recipe.minimizer)}'
    )

"""One epoch of training: runs its batches through the compiled step and collects the metrics.

Axes: `S` steps of the epoch.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax import data
from rfn_jax.core import errors, numerics, preemption, rng, sharding
from rfn_jax.training import programs
from rfn_jax.training import state as state_lib

COUNTERS = ('ascent_count', 'skipped_count')

_norm = jax.jit(numerics.tree_norm)


class Progress(NamedTuple):
    """How far an epoch is.

    Attributes:
      steps: Number of steps done.
      history: The metrics of those steps, each a list of numbers.
    """

    steps: int = 0
    history: Mapping[str, list[float]] = {}


NOT_STARTED = Progress()


class EpochStoppedError(Exception):
    """The epoch was stopped between two steps.

    Attributes:
      state: The state after the steps that were done.
      progress: How far the epoch is.
    """

    def __init__(self, state: state_lib.TrainState, progress: Progress):
        super().__init__(f'stopped after {progress.steps} steps')
        self.state, self.progress = state, progress


def run(
    program: programs.Program,
    state: state_lib.TrainState,
    loader: data.Loader,
    epoch: int,
    *,
    name: str,
    progress: Progress = NOT_STARTED,
) -> tuple[state_lib.TrainState, dict[str, float | None]]:
    """Trains for one epoch; the host waits for the devices only at the end.

    Args:
      program: The compiled step.
      state: The state before the epoch, which is donated.
      loader: The batches; the augmentation uses the same seed as their order.
      epoch: Number of the epoch, from 1.
      name: What to call the run in messages.
      progress: The steps of the epoch that `state` has done already.

    Returns:
      The state after the epoch and the figures of the epoch: the means of the steps' metrics (None if no value is finite),
      the last values of counters, `parameter_norm` after the epoch, and `learning_rate` at its first step.

    Raises:
      RunError: A loss, or the norm of the parameters after the epoch, is not finite.
      EpochStoppedError: A preemption was requested.
    """
    key = sharding.replicate_key(rng.key_for(loader.seed, 'augment', epoch), program.mesh)
    history = []
    for batch in loader.epoch(epoch, steps_per_call=program.steps_per_call, first_step=progress.steps):
        if preemption.is_requested():
            steps = _join(progress, history)
            done = {name: values.tolist() for name, values in steps.items()}
            raise EpochStoppedError(state, Progress(len(steps.get('loss', ())), done))
        state, metrics = program.step(state, batch, key)
        history.append(metrics)
    steps, norm = _join(progress, history), jax.device_get(_norm(state.params))
    _check_finite(steps['loss'], float(norm), name, epoch, program)
    figures = {name: _finite_mean(values) for name, values in steps.items()}
    for counter in steps.keys() & set(COUNTERS):
        figures[counter] = int(steps[counter][-1])
    figures['parameter_norm'] = float(norm)
    figures['learning_rate'] = float(program.schedule(jnp.int32((epoch - 1) * program.steps_per_epoch)))
    return state, figures


def _join(progress: Progress, history: list[Mapping[str, jax.Array]]) -> dict[str, np.ndarray]:
    """The metrics of all steps of the epoch so far."""
    calls = [progress.history, *jax.device_get(history)]
    names = {name: None for call in calls for name in call}
    return {name: np.concatenate([np.atleast_1d(call[name]) for call in calls if call]) for name in names}


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

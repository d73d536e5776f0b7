"""One epoch of training, of one network or several: runs the batches through the compiled step and collects the metrics.

Axes: `S` steps of the epoch.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax import data
from rfn_jax.core import errors, numerics, preemption, rng, sharding
from rfn_jax.training import programs
from rfn_jax.training import state as state_lib

AHEAD = 8  # calls of the step that the devices may be behind
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


@dataclasses.dataclass
class Trainee:
    """A network while it is trained.

    Attributes:
      name: What to call it in messages.
      loader: Its batches; the augmentation uses the same seed as their order.
      state: Its state after the last step.
      progress: The steps of the current epoch that `state` has done.
    """

    name: str
    loader: data.Loader
    state: state_lib.TrainState
    progress: Progress = NOT_STARTED


class EpochStoppedError(Exception):
    """The epoch was stopped between two steps; the networks have their state and progress.

    Attributes:
      steps: Number of steps done.
    """

    def __init__(self, steps: int):
        super().__init__(f'stopped after {steps} steps')
        self.steps = steps


def run(program: programs.Program, trainees: Sequence[Trainee], epoch: int) -> list[dict[str, float | None]]:
    """Trains networks to the end of an epoch, with one call of the program for the steps of all of them.

    The host runs at most `AHEAD` calls ahead of the devices. Their states before the epoch are donated.

    Args:
      program: The compiled step.
      trainees: The networks, which have done the same number of steps of the epoch. Their state becomes that after the epoch.
      epoch: Number of the epoch, from 1.

    Returns:
      The figures of the epoch, for each network: the means of the steps' metrics (None if no value is finite), the last
      values of counters, `parameter_norm` after the epoch, and `learning_rate` at its first step.

    Raises:
      RunError: A loss, or the norm of the parameters after the epoch, is not finite.
      EpochStoppedError: A preemption was requested.
    """
    keys = tuple(
        sharding.replicate_key(rng.key_for(trainee.loader.seed, 'augment', epoch), program.mesh) for trainee in trainees
    )
    calls = {'steps_per_call': program.steps_per_call, 'first_step': trainees[0].progress.steps}
    histories: list[list] = [[] for _ in trainees]
    for batches in zip(*(trainee.loader.epoch(epoch, **calls) for trainee in trainees), strict=True):
        if preemption.is_requested():
            for trainee, history in zip(trainees, histories, strict=True):
                done = {name: values.tolist() for name, values in _join(trainee.progress, history).items()}
                trainee.progress = Progress(len(done.get('loss', ())), done)
            raise EpochStoppedError(trainees[0].progress.steps)
        states, metrics = program.advance(tuple(trainee.state for trainee in trainees), batches, keys)
        for trainee, state, history, figures in zip(trainees, states, histories, metrics, strict=True):
            trainee.state = state
            history.append(figures)
        if len(histories[0]) > AHEAD:  # or a request to stop would be noticed when the devices have far more to do
            jax.block_until_ready(histories[0][-1 - AHEAD])
    return [_figures(program, trainee, history, epoch) for trainee, history in zip(trainees, histories, strict=True)]


def _figures(program: programs.Program, trainee: Trainee, history: list, epoch: int) -> dict[str, float | None]:
    """The figures of an epoch that is over; the next one is not started."""
    steps, norm = _join(trainee.progress, history), jax.device_get(_norm(trainee.state.params))
    trainee.progress = NOT_STARTED
    _check_finite(steps['loss'], float(norm), trainee.name, epoch, program)
    figures = {name: _finite_mean(values) for name, values in steps.items()}
    for counter in steps.keys() & set(COUNTERS):
        figures[counter] = int(steps[counter][-1])
    figures['parameter_norm'] = float(norm)
    figures['learning_rate'] = float(program.schedule(jnp.int32((epoch - 1) * program.steps_per_epoch)))
    return figures


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

"""The benchmark that `rfn-jax bench` runs."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
from jax.sharding import Mesh

from rfn_jax.bench import hardware, programs, results, rounds
from rfn_jax.core import checks, errors
from rfn_jax.core import console as console_lib

MINIMIZERS = {
    'sgd': {'name': 'sgd'},
    'rfn_sam': {'name': 'rfn_sam', 'rho': 0.4},
    'looksam': {'name': 'looksam', 'rho': 0.4, 'k': 5},
}
MAX_COUNT = 1 << 20  # of rounds, of steps in a call, and of images in a batch
ATTACKS = {
    'bim-50': {'name': 'bim', 'eps': 4 / 255, 'steps': 50},
    'mi+di+ti-10': {'name': 'mi+di+ti', 'eps': 16 / 255, 'steps': 10},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """What to time.

    Attributes:
      models: Names of models with their batch sizes.
      precisions: Names in `PRECISIONS`.
      minimizers: Names in `MINIMIZERS`.
      attacks: Names in `ATTACKS`.
      rounds: Number of rounds, at least 1.
      seconds: Approximate duration of a round of one program.
      steps_per_call: Training steps per compiled call.
      limit_s: Seconds after which no further group is started; None for no limit.

    Raises:
      InputError: A name is unknown or a number is out of range.
    """

    models: Mapping[str, int]
    precisions: Sequence[str]
    minimizers: Sequence[str]
    attacks: Sequence[str]
    rounds: int = 5
    seconds: float = 0.5
    steps_per_call: int = 1
    limit_s: float | None = None

    def __post_init__(self):
        for kind, names, known in (
            ('model for a benchmark', self.models, programs.sizes.table()),
            ('precision', self.precisions, hardware.PRECISIONS),
            ('minimizer for a benchmark', self.minimizers, MINIMIZERS),
            ('attack for a benchmark', self.attacks, ATTACKS),
        ):
            for name in names:
                checks.one_of(kind, name, known)
        for name in ('rounds', 'steps_per_call'):
            checks.integer(name, getattr(self, name), at_least=1, at_most=MAX_COUNT)
        for kind in ('precisions', 'minimizers', 'attacks'):
            if len(set(getattr(self, kind))) < len(getattr(self, kind)):
                raise errors.InputError(f'{kind} must not repeat, got {", ".join(getattr(self, kind))}')
        if not next(self.groups(), None):
            raise errors.InputError('there is nothing to time: name a model, a precision, and a minimizer or an attack')
        for name in ('seconds', 'limit_s'):
            value = getattr(self, name)
            if value is not None:
                checks.number(name.removesuffix('_s'), value, above=0)
        for model, batch_size in self.models.items():
            checks.integer(f'the batch size of {model}', batch_size, at_least=1, at_most=MAX_COUNT)

    def groups(self) -> Iterator[tuple[str, int, str, str, Sequence[str]]]:
        """Yields what to time in interleaved rounds: model, batch size, precision, kind, names of minimizers or attacks."""
        for model, batch_size in self.models.items():
            for precision in self.precisions:
                for kind, names in (('training', self.minimizers), ('attack', self.attacks)):
                    if names:
                        yield model, batch_size, precision, kind, names


def run(
    suite: Suite, mesh: Mesh, console: console_lib.Console, save: Callable[[list[results.Row]], None]
) -> list[results.Row]:
    """Times everything, group by group.

    Args:
      suite: What to time.
      mesh: The devices; every batch size must be a multiple of their number.
      console: Where to report progress.
      save: Called with all rows so far after each group, so that a stopped run leaves what it has finished.

    Returns:
      The rows; one that ran out of memory, or was not started within the limit, has an `error` in place of times.

    Raises:
      InputError: A batch size does not divide evenly over the devices.
    """
    for model, batch_size in suite.models.items():
        if batch_size % mesh.size:
            raise errors.InputError(
                f'the batch size {batch_size} of {model} does not divide evenly over {mesh.size} devices'
            )
    start, rows = time.monotonic(), []
    for model, batch_size, precision, kind, names in suite.groups():
        shared = {'model': model, 'kind': kind, 'precision': precision, 'batch_size': batch_size}
        if suite.limit_s is not None and time.monotonic() - start > suite.limit_s:
            rows += [
                results.Row(work=work, error=f'not started within {suite.limit_s:g} s', **shared) for work in names
            ]
        else:
            console.info(f'{kind} of {model}, batch {batch_size}, {precision}: {", ".join(names)}')
            rows += _group(suite, mesh, names, shared)
        save(rows)
    return rows


def _group(suite: Suite, mesh: Mesh, names: Sequence[str], shared: dict) -> list[results.Row]:
    """Compiles the programs of one group, times them in interleaved rounds, and releases them."""
    model, kind = shared['model'], shared['kind']
    options = {'batch_size': shared['batch_size'], 'precision': shared['precision'], 'mesh': mesh}
    compiled: dict[str, programs.Program] = {}
    failed: dict[str, str] = {}
    for work in names:
        try:
            if kind == 'training':
                per_call = suite.steps_per_call
                compiled[work] = programs.training_program(model, MINIMIZERS[work], steps_per_call=per_call, **options)
            else:
                compiled[work] = programs.attack_program(model, ATTACKS[work], **options)
        except errors.RunError as error:
            failed[work] = str(error)
        except MemoryError:
            failed[work] = 'not enough memory; use a smaller batch size'
    try:
        times = rounds.time_interleaved(list(compiled.values()), rounds=suite.rounds, seconds=suite.seconds)
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        failed |= dict.fromkeys(compiled, 'not enough device memory; use a smaller batch size')
        compiled, times = {}, []
    peak = hardware.peak_flops(mesh.devices.flat[0].device_kind, shared['precision'])
    rows = [results.Row(work=work, error=reason, **shared) for work, reason in failed.items()]
    for (work, program), seconds in zip(compiled.items(), times, strict=True):
        row = results.Row(
            work=work,
            steps_per_call=program.steps,
            seconds=[value / program.steps for value in seconds],
            model_tflops=program.model_flops / program.steps / 1e12,
            compile_s=program.compile_s,
            memory_bytes=program.memory_bytes,
            **shared,
        )
        if peak is not None:
            row = dataclasses.replace(row, utilization=row.model_tflops * 1e12 / row.median / (peak * mesh.size))
        rows.append(row)
    return rows

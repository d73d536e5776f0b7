"""`rfn-jax bench`: the speed of training and attacks on this machine."""

import os
from collections.abc import Sequence

from absl import flags

from rfn_jax.cli import flag_values
from rfn_jax.core import console as console_lib
from rfn_jax.core import errors

SUMMARY = 'times training steps and attacks on synthetic images, on any device.'
# Models with batch sizes that keep an accelerator busy, or that take a CPU a few minutes.
ACCELERATOR = 'cifar_resnet18:128,resnet50:256,vit_b_16:128'
CPU = 'cifar_resnet18:16'


def main(arguments: Sequence[str]) -> int:
    """Runs `rfn-jax bench`.

    Raises:
      InputError: A flag is wrong.
      RunError: The result could not be written.
    """
    values = flags.FlagValues()
    for name, help_text in (
        ('models', f'Models with batch sizes, as NAME:BATCH; by default {ACCELERATOR}, or {CPU} on a CPU.'),
        ('precisions', 'float32, tf32, bfloat16; by default all, or only float32 on a CPU.'),
        ('minimizers', 'sgd, rfn_sam, looksam (k = 5); by default all; an empty list for none.'),
        ('attacks', 'bim-50 (50 steps), mi+di+ti-10 (10 steps); by default both; an empty list for none.'),
    ):
        flags.DEFINE_list(name, None, help_text, flag_values=values)
    flags.DEFINE_integer(
        'rounds',
        5,
        'Number of interleaved rounds; the table shows their median, minimum and maximum in ms.',
        flag_values=values,
    )
    flags.DEFINE_float('seconds', 0.5, 'Approximate duration of each program in a round.', flag_values=values)
    help_text = 'Training steps per compiled call; by default 10 on an accelerator and 1 on a CPU.'
    flags.DEFINE_integer('steps_per_call', None, help_text, flag_values=values)
    flags.DEFINE_float('limit', None, 'Start no further group of programs after this many seconds.', flag_values=values)
    flags.DEFINE_string(
        'out',
        'bench.json',
        'File for the result, rewritten whenever a group of programs is finished.',
        flag_values=values,
    )
    flags.DEFINE_string('compare', None, 'File with an earlier result to compare with.', flag_values=values)
    flag_values.parse(values, 'bench', SUMMARY, arguments)

    from rfn_jax import bench
    from rfn_jax.core import environment, io, sharding

    console = console_lib.Console()
    before = bench.read(values.compare) if values.compare else None
    mesh = sharding.data_mesh()
    on_cpu = mesh.devices.flat[0].platform == 'cpu'
    per_call = (1 if on_cpu else 10) if values.steps_per_call is None else values.steps_per_call
    suite = bench.Suite(
        models=_parse_models((CPU if on_cpu else ACCELERATOR).split(',') if values.models is None else values.models),
        precisions=_names(values.precisions, ['float32'] if on_cpu else list(bench.PRECISIONS)),
        minimizers=_names(values.minimizers, list(bench.MINIMIZERS)),
        attacks=_names(values.attacks, list(bench.ATTACKS)),
        rounds=values.rounds,
        seconds=values.seconds,
        steps_per_call=per_call,
        limit_s=values.limit,
    )
    if not values.out:
        raise errors.InputError('--out must be the name of a file')
    if values.compare and os.path.realpath(values.compare) == os.path.realpath(values.out):
        raise errors.InputError(
            f'--compare and --out are the same file, {values.out}: name another file for the result'
        )
    io.check_writable(values.out)
    about = environment.describe(mesh)
    command = ' '.join(['rfn-jax bench', *arguments])
    rows = bench.run(suite, mesh, console, lambda rows: bench.write(values.out, about, command, rows))
    console.info(f'{about["devices"]}, {about["platform"]}, jax {about["jax"]}')
    for table in bench.tables(rows):
        console.rich.print(table)
    if before is not None:
        title = f'compared with {values.compare}: {before[0].get("devices", "unknown devices")}'
        console.rich.print(bench.compare(rows, before[1], title=title))
    console.info(f'written to {values.out}')
    return 0


def _names(given: list[str] | None, default: list[str]) -> list[str]:
    """The names that a flag gives, without empty ones; by default `default`."""
    return default if given is None else [name for name in given if name]


def _parse_models(given: Sequence[str]) -> dict[str, int]:
    """The batch size of each model, from texts `NAME:BATCH`."""
    batch_sizes = {}
    for text in given:
        name, separator, batch = text.partition(':')
        if not separator or not batch.isdecimal() or len(batch) > 9:
            raise errors.InputError(f'--models must be a list of NAME:BATCH separated by commas, got {text[:80]!r}')
        if name in batch_sizes:
            raise errors.InputError(f'--models names {name!r} twice; time the other batch size in a separate run')
        batch_sizes[name] = int(batch)
    return batch_sizes

"""Where the time of a training step goes on an accelerator: its kernels by their share of device time.

python tests/device/kernels.py --out=FILE.json cifar_resnet18:128:sgd cifar_resnet18:128:rfn_sam resnet50:256:sgd
"""

import argparse
import collections
import pathlib
import tempfile

import jax

from rfn_jax import bench
from rfn_jax.core import environment, io, sharding

SHOWN = 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', required=True)
    parser.add_argument('models', nargs='+', metavar='NAME:BATCH:MINIMIZER')
    arguments = parser.parse_args()
    mesh = sharding.data_mesh(jax.devices()[:1])
    profile = {'environment': environment.describe(mesh), 'programs': {}}
    for text in arguments.models:
        name, batch_size, minimizer = text.split(':')
        options = {'batch_size': int(batch_size), 'precision': 'bfloat16', 'steps_per_call': 10, 'mesh': mesh}
        program = bench.training_program(name, bench.MINIMIZERS[minimizer], **options)
        bench.time_calls(program, 1)
        with tempfile.TemporaryDirectory() as directory:
            with jax.profiler.trace(directory):
                seconds = bench.time_calls(program, 1)
            kernels, launches = by_kernel(directory)
        total = sum(kernels.values())
        found = {
            'ms_per_step': 1e3 * seconds / program.steps,
            'device_ms_per_step': total / 1e6 / program.steps,
            'launches_per_step': launches / program.steps,
            'shares': {kernel: time / total for kernel, time in kernels.most_common(SHOWN)},
        }
        profile['programs'][text] = found
        print('{}: {:.3f} ms per step, {:.3f} ms in {:.0f} kernels'.format(text, *list(found.values())[:3]))
        for kernel, share in found['shares'].items():
            print(f'  {share:6.1%}  {kernel[:100]}')
        io.write_json(arguments.out, profile)


def by_kernel(directory: str) -> tuple[collections.Counter, int]:
    """Nanoseconds of each kernel in the traces of a directory, and the number of launches; empty and 0 on a CPU."""
    times: collections.Counter = collections.Counter()
    launches = 0
    for path in pathlib.Path(directory).rglob('*.xplane.pb'):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            if not plane.name.startswith('/device:'):
                continue
            for line in plane.lines:
                if line.name.startswith('Stream'):
                    for event in line.events:
                        launches += 1
                        times[event.name.rstrip('0123456789_.')] += event.duration_ns
    return times, launches


if __name__ == '__main__':
    main()

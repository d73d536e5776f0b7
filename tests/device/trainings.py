"""Trains the networks of an experiment within a time limit, measures the finished ones, and keeps the results.

    python tests/device/trainings.py --config=FILE --workdir=DIR --out=DIR --limit=SECONDS [--rehearse]

Surrogates and targets are trained side by side, in the order of the config, so that one process can compile while another
computes. They are stopped `--reserve` seconds before the limit, and the networks that reached their last epoch are measured
with a config that leaves out the others. Whenever a network is finished, `results.tar.gz` (tables, report, metrics, config)
is written to `--out`, and so are the final weights of a surrogate, in bfloat16, as safetensors files of at most 15 MiB.

With `--rehearse`, only the first epoch of every network is trained: if JAX_COMPILATION_CACHE_DIR is set, the compiled
programs stay in JAX's compilation cache for a later run with the same config.
"""

import argparse
import contextlib
import os
import pathlib
import runpy
import subprocess
import sys
import tarfile
import time
from io import BytesIO

from rfn_jax import experiment
from rfn_jax.core import io
from rfn_jax.experiment import layout
from rfn_jax.models import sizes

RFN_JAX = [sys.executable, '-m', 'rfn_jax.cli.main']
HERE = pathlib.Path(__file__).parent
KEPT = ('results/*', 'report/*', '*.json', '*/*/metrics.jsonl', '*/*/*/metrics.jsonl')
ROLES = ('surrogates', 'validation_targets', 'targets')


class Runs:
    """Commands that run side by side, each with its own log."""

    def __init__(self, logs: pathlib.Path):
        self._logs = logs
        self._processes: dict[str, subprocess.Popen] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, *arguments: str) -> None:
        with (self._logs / f'{name}.log').open('a') as log:
            self._processes[name] = subprocess.Popen(
                [*RFN_JAX, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'},  # device memory is allocated as needed
            )

    def is_running(self, name: str) -> bool:
        return name in self._processes and self._processes[name].poll() is None

    def stop(self, name: str) -> None:
        if self.is_running(name):
            self._processes[name].kill()
            self._processes[name].wait()

    def stop_all(self) -> None:
        for name in self._processes:
            self.stop(name)


def main() -> int:
    """Runs the command line; the status is 1 if nothing could be measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ('config', 'workdir', 'out'):
        parser.add_argument(f'--{name}', type=pathlib.Path, required=True)
    parser.add_argument('--limit', type=float, required=True)
    parser.add_argument('--reserve', type=float, default=75.0, help='seconds of the limit, for measuring')
    parser.add_argument('--lanes', nargs='+', default=(), help='folders to train in turn in a process, with commas')
    parser.add_argument('--rehearse', action='store_true')
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.limit
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = load(arguments.config)
    plan = set_config(arguments.workdir, config)
    runs = Runs(arguments.out / 'logs')
    try:
        if arguments.rehearse:
            rehearse(plan, arguments.workdir, runs, end)
            return 0
        lanes = [lane.split(',') for lane in arguments.lanes] or default_lanes(plan)
        train(plan, lanes, arguments.workdir, arguments.out, runs, end - arguments.reserve)
        measure(plan, config, arguments.workdir, runs, end)
        pack(arguments.workdir, arguments.out)
        return 0 if (arguments.workdir / 'results' / 'gains.csv').exists() else 1
    finally:
        runs.stop_all()


def load(path: pathlib.Path) -> dict:
    return experiment.pinned(runpy.run_path(path)['get_config']().to_dict())


def set_config(directory: pathlib.Path, config: dict) -> experiment.Plan:
    """Makes a config the one of a work directory, without tracing its networks first."""
    plan = experiment.read(config)
    layout.write_config(directory, config)
    return plan


def rehearse(plan: experiment.Plan, directory: pathlib.Path, runs: Runs, end: float) -> None:
    """Trains the first epoch of each network, three networks at a time."""
    waiting = [network.folder for role in ROLES for network in networks_of(plan, role)]
    active: list[str] = []
    while (waiting or active) and time.monotonic() < end:
        while waiting and len(active) < 3:
            active.append(waiting.pop(0))
            name = active[-1].replace('/', '-')
            runs.start(name, 'train', f'--workdir={directory}', f'--only={active[-1]}')
        for folder in list(active):
            name, log = folder.replace('/', '-'), directory / folder / 'metrics.jsonl'
            if (log.exists() and log.read_text()) or not runs.is_running(name):
                runs.stop(name)
                active.remove(folder)
                print(f'rehearsed {folder}', flush=True)
        time.sleep(0.2)


def default_lanes(plan: experiment.Plan) -> list[list[str]]:
    # Nothing can be measured without surrogates and validation targets; of the targets, the cheapest come first.
    targets = sorted(networks_of(plan, 'targets'), key=cost)
    return [['surrogates'], [network.folder for network in (*networks_of(plan, 'validation_targets'), *targets)]]


def train(plan: experiment.Plan, lanes: list, directory: pathlib.Path, out: pathlib.Path, runs: Runs, end: float):
    """Trains each lane in a process of its own until `end`, and keeps the results of each network once it is finished."""
    commands = {f'lane{number}': list(folders) for number, folders in enumerate(lanes)}
    kept: set[str] = set()
    while time.monotonic() < end:
        for name, waiting in commands.items():
            if waiting and not runs.is_running(name):
                runs.start(name, 'train', f'--workdir={directory}', f'--only={waiting.pop(0)}')
        done = {network.folder for network in plan.networks if is_finished(network, directory)}
        for folder in sorted(done - kept):
            print(f'finished {folder}', flush=True)
            if folder.startswith('surrogates'):
                write_weights(directory / folder, out)
            kept.add(folder)
            pack(directory, out)
        if not any(commands.values()) and not any(runs.is_running(name) for name in commands):
            break
        time.sleep(0.5)
    for name in commands:
        runs.stop(name)


def measure(plan: experiment.Plan, config: dict, directory: pathlib.Path, runs: Runs, end: float) -> None:
    """Crafts and measures with the finished networks, using a config that leaves out the others."""
    done = {role: [n for n in networks_of(plan, role) if is_finished(n, directory)] for role in ROLES}
    if not all(done.values()) or not any(n.training in plan.baselines for n in done['surrogates']):
        print('too little was finished to measure anything', flush=True)
        return
    unfinished = {n.training for n in networks_of(plan, 'surrogates') if n not in done['surrogates']}
    trainings = {name: spec for name, spec in config['trainings'].items() if name not in unfinished}
    stopped = {name: training for name, training in config['early_stopping'].items() if training in trainings}
    smaller = {
        **config,
        'trainings': trainings,
        'early_stopping': stopped,
        'baselines': [name for name in config['baselines'] if name in trainings or name in stopped],
        **{role: {n.model: config[role][n.model] for n in done[role]} for role in ('targets', 'validation_targets')},
    }
    set_config(directory, smaller)
    runs.start('measure', 'run', f'--workdir={directory}')
    while runs.is_running('measure') and time.monotonic() < end:
        time.sleep(0.2)


def networks_of(plan: experiment.Plan, role: str) -> list:
    return plan.of_role(role.removesuffix('s'))


def cost(network) -> float:
    """Multiply-adds for one image, in billions; 0 if unknown."""
    size = sizes.table().get(network.spec['name'])
    return size.gflops if size else 0.0


def is_finished(network, directory: pathlib.Path) -> bool:
    # A checkpoint is given its name only once it is complete.
    return (directory / network.folder / 'checkpoints' / str(network.last_epoch)).is_dir()


def write_weights(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the final weights of a network in pieces, in a process that does not use the accelerator."""
    name = '-'.join(folder.parts[-2:])
    with (out / 'logs' / 'weights.log').open('a') as log:
        subprocess.Popen(
            [sys.executable, HERE / 'pieces.py', folder, out / name],
            env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def pack(directory: pathlib.Path, out: pathlib.Path) -> None:
    content = BytesIO()
    with tarfile.open(fileobj=content, mode='w:gz') as archive:
        for path in sorted({path for pattern in KEPT for path in directory.glob(pattern)}):
            with contextlib.suppress(FileNotFoundError):  # a run is just replacing the file
                archive.add(path, arcname=str(path.relative_to(directory.parent)))
        archive.add(out / 'logs', arcname='logs')
    io.write_bytes(out / 'results.tar.gz', content.getvalue())


if __name__ == '__main__':
    sys.exit(main())

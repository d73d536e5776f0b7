"""Trains an experiment's networks within a time limit, measures those that were finished, and keeps what came out.

    python tests/device/trainings.py --config=FILE --workdir=DIR --out=DIR --limit=SECONDS [--rehearse]

Surrogates and targets train side by side, in the order of the config: one process compiles while the other computes. At
the limit, less a reserve for measuring, they are stopped, and what reached its last epoch is measured by a config that leaves
out the rest. `--out` gets `results.tar.gz` (tables, report, metrics, config) whenever something was finished, and the last
weights of the surrogates in bfloat16, as safetensors files of at most 15 MiB.

With `--rehearse` every network trains its first epoch only: what was compiled stays in JAX's compilation cache, if
JAX_COMPILATION_CACHE_DIR is set, for a later run with the same config.
"""

import argparse
import contextlib
import importlib.util
import os
import pathlib
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
    """Commands that run beside each other, each with its log.

    Args:
      logs: Directory of the logs.
    """

    def __init__(self, logs: pathlib.Path):
        self._logs = logs
        self._processes: dict[str, subprocess.Popen] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, arguments: list[str], **environment: str) -> None:
        """Starts `rfn-jax` with some arguments; devices give it memory as it needs it."""
        with (self._logs / f'{name}.log').open('a') as log:
            self._processes[name] = subprocess.Popen(
                [*RFN_JAX, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false', **environment},
            )

    def running(self, name: str) -> bool:
        """Whether a command runs."""
        return name in self._processes and self._processes[name].poll() is None

    def stop(self, name: str) -> None:
        """Ends a command, at once."""
        if self.running(name):
            self._processes[name].kill()
            self._processes[name].wait()

    def stop_all(self) -> None:
        """Ends all of them."""
        for name in self._processes:
            self.stop(name)


def main() -> int:
    """Runs the command line; the status is 1 if nothing could be measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ('config', 'workdir', 'out'):
        parser.add_argument(f'--{name}', type=pathlib.Path, required=True)
    parser.add_argument('--limit', type=float, required=True)
    parser.add_argument('--reserve', type=float, default=75.0, help='seconds of the limit that are kept for measuring')
    parser.add_argument(
        '--lanes', nargs='+', default=(), help='folders to train one after another, with commas between'
    )
    parser.add_argument('--rehearse', action='store_true')
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.limit
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = load(arguments.config)
    plan = bind(arguments.workdir, config)
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
    """The config of a file, with the files that it names pinned."""
    spec = importlib.util.spec_from_file_location('config', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return experiment.pinned(module.get_config().to_dict())


def bind(directory: pathlib.Path, config: dict) -> experiment.Plan:
    """Makes a config that of a work directory, without tracing its networks first."""
    plan = experiment.read(config)
    layout.write_config(directory, config)
    return plan


def rehearse(plan: experiment.Plan, directory: pathlib.Path, runs: Runs, end: float) -> None:
    """Trains the first epoch of each network, three networks at a time."""
    waiting = [network.folder for role in ROLES for network in of(plan, role)]
    active: list[str] = []
    while (waiting or active) and time.monotonic() < end:
        while waiting and len(active) < 3:
            active.append(waiting.pop(0))
            name = active[-1].replace('/', '-')
            runs.start(name, ['train', f'--workdir={directory}', f'--only={active[-1]}'])
        for folder in list(active):
            name, log = folder.replace('/', '-'), directory / folder / 'metrics.jsonl'
            if (log.exists() and log.read_text()) or not runs.running(name):
                runs.stop(name)
                active.remove(folder)
                print(f'rehearsed {folder}', flush=True)
        time.sleep(0.2)


def default_lanes(plan: experiment.Plan) -> list[list[str]]:
    """Surrogates in one process, and the other networks in another."""
    # Without validation targets nothing can be measured, and of the targets those that cost least come first.
    targets = sorted(of(plan, 'targets'), key=cost)
    return [['surrogates'], [network.folder for network in (*of(plan, 'validation_targets'), *targets)]]


def train(
    plan: experiment.Plan,
    lanes: list[list[str]],
    directory: pathlib.Path,
    out: pathlib.Path,
    runs: Runs,
    end: float,
) -> None:
    """Trains each lane in a process of its own until `end`, and keeps what is finished as it is finished."""
    commands = {
        f'lane{number}': [['train', f'--workdir={directory}', f'--only={folder}'] for folder in folders]
        for number, folders in enumerate(lanes)
    }
    kept: set[str] = set()
    while time.monotonic() < end:
        for name, waiting in commands.items():
            if waiting and not runs.running(name):
                runs.start(name, waiting.pop(0))
        done = {network.folder for network in plan.networks if finished(network, directory)}
        for folder in sorted(done - kept):
            print(f'finished {folder}', flush=True)
            if folder.startswith('surrogates'):
                keep_weights(directory / folder, out)
            kept.add(folder)
            pack(directory, out)
        if not any(commands.values()) and not any(runs.running(name) for name in commands):
            break
        time.sleep(0.5)
    for name in commands:
        runs.stop(name)


def measure(plan: experiment.Plan, config: dict, directory: pathlib.Path, runs: Runs, end: float) -> None:
    """Crafts with and measures on the networks that are finished, by a config that leaves out the others."""
    done = {role: [n for n in of(plan, role) if finished(n, directory)] for role in ROLES}
    if not all(done.values()) or not any(n.training in plan.baselines for n in done['surrogates']):
        print('too little was finished to measure anything', flush=True)
        return
    unfinished = {n.training for n in of(plan, 'surrogates') if n not in done['surrogates']}
    trainings = {name: spec for name, spec in config['trainings'].items() if name not in unfinished}
    stopped = {name: of for name, of in config['early_stopping'].items() if of in trainings}
    smaller = {
        **config,
        'trainings': trainings,
        'early_stopping': stopped,
        'baselines': [name for name in config['baselines'] if name in trainings or name in stopped],
        **{role: {n.model: config[role][n.model] for n in done[role]} for role in ('targets', 'validation_targets')},
    }
    bind(directory, smaller)
    runs.start('measure', ['run', f'--workdir={directory}'])
    while runs.running('measure') and time.monotonic() < end:
        time.sleep(0.2)


def of(plan: experiment.Plan, role: str) -> list:
    """The networks of a role, which is named in the plural."""
    return plan.of_role(role.removesuffix('s'))


def cost(network) -> float:
    """Multiply-adds of one image, where they are known."""
    size = sizes.table().get(network.spec['name'])
    return size.gflops if size else 0.0


def finished(network, directory: pathlib.Path) -> bool:
    """Whether the checkpoint of the last epoch is there, whole: it gets its name when it is."""
    return (directory / network.folder / 'checkpoints' / str(network.last_epoch)).is_dir()


def keep_weights(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the last weights of a network in pieces, in a process that leaves the accelerator alone."""
    name = '-'.join(folder.parts[-2:])
    with (out / 'logs' / 'weights.log').open('a') as log:
        subprocess.Popen(
            [sys.executable, HERE / 'pieces.py', folder, out / name],
            env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def pack(directory: pathlib.Path, out: pathlib.Path) -> None:
    """Writes `results.tar.gz`, whole or not at all."""
    content = BytesIO()
    with tarfile.open(fileobj=content, mode='w:gz') as archive:
        for path in sorted({path for pattern in KEPT for path in directory.glob(pattern)}):
            with contextlib.suppress(FileNotFoundError):  # replaced by a run in this moment
                archive.add(path, arcname=str(path.relative_to(directory.parent)))
        archive.add(out / 'logs', arcname='logs')
    io.write_bytes(out / 'results.tar.gz', content.getvalue())


if __name__ == '__main__':
    sys.exit(main())

"""Kills a small experiment of two processes again and again, and compares what it ends with with an undisturbed run.

    python tests/survival/kills.py --out=kills.json --kills=20

The same command starts each run, which goes on from what the last one left. At a random moment, one of its processes or both
get SIGTERM or SIGKILL. The file says for each kill when it came, during what, and the exit statuses, and for each
finished run whether its tables, adversarial sets and weights are those of the undisturbed run, byte for byte.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

from rfn_jax.core import digests

CONFIG = pathlib.Path(__file__).parents[1] / 'small_experiment.py'
PROCESSES = 2
TIMEOUT_S = 300


def main() -> int:
    """Runs the command line; the status is 1 if the bytes differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=pathlib.Path, required=True)
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = pathlib.Path(folder) / 'whole'
        began = time.monotonic()
        statuses = wait(start(whole))
        seconds = time.monotonic() - began
        if any(statuses):
            raise RuntimeError(f'the undisturbed run ended with {statuses}: {log(whole)}')
        expected, rows, number = contents(whole), [], 0
        while len(rows) < arguments.kills:
            number += 1
            directory = pathlib.Path(folder) / f'killed{number}'
            rows += killed_until_done(directory, draw, seconds, arguments.kills - len(rows))
            found = contents(directory)
            same = found == expected
            rows[-1]['same_bytes'] = same
            print(f'run {number}: {"the same bytes" if same else differences(expected, found)}', flush=True)
    record = {'seconds': round(seconds, 1), 'processes': PROCESSES, 'kills': rows}
    arguments.out.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
    return 0 if all(row.get('same_bytes', True) for row in rows) else 1


def killed_until_done(directory: pathlib.Path, draw: random.Random, seconds: float, at_most: int) -> list[dict]:
    """Starts a run until it is done, and kills it at most so many times; one row a kill."""
    rows: list[dict] = []
    while True:
        processes, began = start(directory), time.monotonic()
        if len(rows) == at_most:
            statuses = wait(processes)
            if any(statuses):
                raise RuntimeError(f'the last run ended with {statuses}: {log(directory)}')
            return rows
        which = draw.choice(([0], [1], [0, 1]))
        number = draw.choice((signal.SIGTERM, signal.SIGKILL))
        moment = draw.uniform(0.2, 0.6) * seconds
        while time.monotonic() - began < moment and all(process.poll() is None for process in processes):
            time.sleep(0.05)
        statuses = [process.poll() for process in processes]
        if statuses == [0] * PROCESSES:
            return rows or [{'note': 'done before the first kill'}]
        for index in which:
            if processes[index].poll() is None:
                processes[index].send_signal(number)
        row = {
            'signal': number.name,
            'processes': which,
            'after_s': round(time.monotonic() - began, 1),
            'during': log(directory).splitlines()[-1:] and log(directory).splitlines()[-1][:100],
            'statuses': wait(processes),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
        if row['statuses'] == [0] * PROCESSES:  # the signal came too late
            return rows


def start(directory: pathlib.Path) -> list[subprocess.Popen]:
    """Starts all processes of a run."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    command = [sys.executable, '-m', 'rfn_jax', 'run', f'--config={CONFIG}', f'--workdir={directory}']
    command += [f'--coordinator=127.0.0.1:{port}', f'--processes={PROCESSES}']
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONUNBUFFERED': '1'}
    processes = []
    for index in range(PROCESSES):
        with pathlib.Path(f'{directory}.{index}.log').open('w') as file:
            options = {'env': environment, 'stdout': file, 'stderr': subprocess.STDOUT}
            processes.append(subprocess.Popen([*command, f'--process={index}'], **options))
    return processes


def wait(processes: list[subprocess.Popen]) -> list[int]:
    """The exit statuses, once all processes have ended."""
    return [process.wait(timeout=TIMEOUT_S) for process in processes]


def log(directory: pathlib.Path) -> str:
    """What the first process printed."""
    return pathlib.Path(f'{directory}.0.log').read_text(encoding='utf-8', errors='replace')


def contents(directory: pathlib.Path) -> dict[str, str]:
    """The hashes of the tables, the adversarial sets and the weights of a work directory."""
    files = [*directory.glob('results/**/*'), *directory.glob('adversarial/**/*')]
    found = {str(path.relative_to(directory)): digests.of_file(path) for path in files if path.is_file()}
    for meta in directory.glob('**/checkpoints/*/meta/metadata'):
        found[str(meta.relative_to(directory))] = json.loads(meta.read_text())['sha256']['variables']
    return found


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """The files that differ, or that only one of the runs has."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


if __name__ == '__main__':
    sys.exit(main())

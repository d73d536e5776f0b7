"""Stops a training run every two minutes, starts it again by the same command, and records what each start leaves behind.

    python tests/survival/resumed.py --out=resumed.json

One small surrogate is trained with RFN on digits, in epochs of a few seconds, so that each SIGTERM comes in the middle of an
epoch. The file says for each start where it stopped, its exit status and the peak memory of its process, how many files of
which size are then in the work directory (a surrogate keeps one checkpoint an epoch), which of them are temporary, and
which blocks of shared memory are new. It also has the trend of the peak memory over the starts, and says whether the weights
are those of a run that was not disturbed.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

from rfn_jax.configs import digits

EPOCHS = 'RFN_JAX_RESUMED_EPOCHS'
SHARED_MEMORY = pathlib.Path('/dev/shm')
TEMPORARY = re.compile(r'tmp|temp|\.part|\.lock$', re.IGNORECASE)
PREEMPTED = 75


def get_config():
    """The config of the run; this file is also a config file."""
    config = digits.get_config()
    epochs = int(os.environ.get(EPOCHS, '300'))
    config.seeds = 1
    config.trainings = {'rfn': {'name': 'rfn_sam', 'rho': 0.4}}
    config.early_stopping, config.baselines = {}, ()
    config.optim.update(epochs=epochs, decay_epochs=(epochs // 2,), batch_size=10, learning_rate=0.01)
    config.surrogates = {'resnet': {'name': 'resnet', 'stage_sizes': (1, 1, 1), 'widths': (32, 64, 128)}}
    return config


def main() -> int:
    """Runs the command line; the status is 1 if the weights differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=pathlib.Path, required=True)
    parser.add_argument('--every', type=float, default=120, help='seconds from a start to its SIGTERM')
    parser.add_argument('--epochs', type=int, default=300, help='how long the run is')
    arguments = parser.parse_args()
    os.environ[EPOCHS] = str(arguments.epochs)
    record = {'every_s': arguments.every, 'epochs': arguments.epochs, 'starts': []}
    with tempfile.TemporaryDirectory() as folder:
        resumed, whole = pathlib.Path(folder) / 'resumed', pathlib.Path(folder) / 'whole'
        while not record['starts'] or record['starts'][-1]['status'] == PREEMPTED:
            record['starts'].append(one_start(resumed, arguments.every))
            print(json.dumps(record['starts'][-1]), flush=True)
            write(arguments.out, record)
        record['undisturbed'] = one_start(whole, None)
        record |= compared(resumed, whole)
    record['peak_rss_mb'] = trend([row['peak_rss_mb'] for row in record['starts']])
    write(arguments.out, record)
    print(
        json.dumps({key: record[key] for key in ('undisturbed', 'same_weights', 'epochs_compared', 'peak_rss_mb')}),
        flush=True,
    )
    return 0 if record['same_weights'] else 1


def one_start(directory: pathlib.Path, seconds: float | None) -> dict[str, object]:
    """Starts the command and stops it after so many seconds, unless it ends before; says what it needed and left."""
    shared, began = in_shared_memory(), time.monotonic()
    command = [
        sys.executable,
        '-m',
        'rfn_jax',
        'train',
        '--only=surrogates',
        f'--config={__file__}',
        f'--workdir={directory}',
    ]
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONUNBUFFERED': '1'}
    log = pathlib.Path(f'{directory}.log')
    with log.open('w') as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    stop = threading.Timer(seconds or 0, process.send_signal, (signal.SIGTERM,))
    if seconds is not None:
        stop.start()
    # `wait4` and not `process.wait`, for the resources of this child alone.
    _, status, usage = os.wait4(process.pid, 0)
    stop.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text(encoding='utf-8', errors='replace')
    stopped = re.search(r'after step (\d+) of epoch (\d+)', text)
    if process.returncode not in (0, PREEMPTED):
        raise RuntimeError(f'status {process.returncode}: {text}')
    files = [path for path in directory.rglob('*') if path.is_file()]
    return {
        'status': process.returncode,
        'seconds': round(time.monotonic() - began, 1),
        'cpu_s': round(usage.ru_utime + usage.ru_stime, 1),
        'stopped_after': {'epoch': int(stopped[2]), 'step': int(stopped[1])} if stopped else None,
        'peak_rss_mb': round(usage.ru_maxrss / 1024, 1),
        'checkpoints': len(list(directory.glob('**/checkpoints/*/meta'))),
        'files': len(files),
        'files_outside_checkpoints': sum('checkpoints' not in path.parts for path in files),
        'size_mb': round(sum(path.stat().st_size for path in files) / 1e6, 2),
        'temporary': sorted(str(p.relative_to(directory)) for p in directory.rglob('*') if TEMPORARY.search(p.name)),
        'new_shared_memory': sorted(in_shared_memory() - shared),
    }


def in_shared_memory() -> set[str]:
    """The names of the blocks of shared memory of all processes."""
    return {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.is_dir() else set()


def compared(one: pathlib.Path, other: pathlib.Path) -> dict[str, object]:
    """Whether the weights and the metrics are the same after each epoch that both runs have, and how many those are."""
    found = [after_epochs(directory) for directory in (one, other)]
    epochs = sorted(set.intersection(*map(set, found)))
    same = bool(epochs) and all(found[0][epoch] == found[1][epoch] for epoch in epochs)
    return {'same_weights': same, 'epochs_compared': len(epochs)}


def after_epochs(directory: pathlib.Path) -> dict[int, tuple]:
    """The hash of the weights after each epoch, and its metrics without times."""
    found = {}
    for metrics in directory.glob('**/metrics.jsonl'):
        for line in map(json.loads, metrics.read_text(encoding='utf-8').splitlines()):
            del line['seconds']
            meta = metrics.parent / 'checkpoints' / str(line['epoch']) / 'meta' / 'metadata'
            if meta.exists():
                digest = json.loads(meta.read_text(encoding='utf-8'))['sha256']['variables']
                found[line['epoch']] = (digest, line)
    return found


def trend(values: list[float]) -> dict[str, float]:
    """The range of the values, and how much they grow from one start to the next, by least squares, with its standard error.

    The first and the last start are left out of the slope: the first restores nothing, and the last ends with other work.
    """
    found = {'least': min(values), 'most': max(values)}
    middle = values[1:-1]
    if len(middle) > 3:
        (slope, _), covariance = np.polyfit(np.arange(len(middle)), middle, 1, cov=True)
        found |= {
            'slope_per_start': round(float(slope), 2),
            'standard_error': round(float(np.sqrt(covariance[0, 0])), 2),
        }
    return found


def write(path: pathlib.Path, record: dict[str, object]) -> None:
    """Writes what is known so far."""
    path.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    sys.exit(main())

"""Two real processes, with two devices each, train as one process with one device does."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

WORKER = pathlib.Path(__file__).with_name('worker.py')


def start(address, count, index, devices):
    environment = {
        **os.environ,
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0',
        'JAX_PLATFORMS': 'cpu',
    }
    return subprocess.Popen(
        [sys.executable, str(WORKER), address, str(count), str(index)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(processes):
    found = []
    try:
        for process in processes:
            out, error = process.communicate(timeout=400)
            assert process.returncode == 0, error[-2000:]
            found.append([line.split() for line in out.splitlines() if len(line.split()) == 5])
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return found


@pytest.mark.slow
def test_two_processes_train_as_one():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{probe.getsockname()[1]}'
    (one,) = results([start('', 1, 0, 1)])
    first, second = results([start(address, 2, index, 2) for index in range(2)])
    assert first == second
    assert [row[:2] for row in first] == [['None', 'False'], ['None', 'True'], ['4', 'False'], ['16', 'False']]
    for row, expected in zip(first, one, strict=True):
        assert row[2] == '4'
        assert [float(x) for x in row[3:]] == pytest.approx([float(x) for x in expected[3:]], rel=1e-5)

"""Two real processes, with two devices each, train as one process with one device does."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


def start(worker, address, count, index, devices):
    environment = {
        **os.environ,
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0',
        'JAX_PLATFORMS': 'cpu',
    }
    return subprocess.Popen(
        [sys.executable, str(HERE / worker), address, str(count), str(index)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_address():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return f'127.0.0.1:{probe.getsockname()[1]}'


def results(processes, columns):
    found = []
    try:
        for process in processes:
            out, error = process.communicate(timeout=400)
            assert process.returncode == 0, error[-2000:]
            found.append([line.split() for line in out.splitlines() if len(line.split()) == columns])
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return found


@pytest.mark.slow
def test_two_processes_train_as_one():
    address = free_address()
    (one,) = results([start('worker.py', '', 1, 0, 1)], 5)
    first, second = results([start('worker.py', address, 2, index, 2) for index in range(2)], 5)
    assert first == second
    assert [row[:2] for row in first] == [['None', 'False'], ['None', 'True'], ['4', 'False'], ['16', 'False']]
    for row, expected in zip(first, one, strict=True):
        assert row[2] == '4'
        assert [float(x) for x in row[3:]] == pytest.approx([float(x) for x in expected[3:]], rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif('TFDS_DATA_DIR' not in os.environ, reason='TFDS_DATA_DIR is not set')
@pytest.mark.parametrize(('processes', 'devices'), [(1, 1), (2, 2)])
def test_both_loaders_give_the_same_weights_after_an_epoch_of_cifar10(processes, devices):
    address = free_address()
    found = results([start('loader_worker.py', address, processes, i, devices) for i in range(processes)], 4)
    assert all(rows == found[0] for rows in found)
    resident, streaming = found[0]
    assert (resident[0], streaming[0]) == ('ResidentLoader', 'StreamingLoader')
    assert resident[1:] == streaming[1:]
    assert int(resident[1]) == processes * devices

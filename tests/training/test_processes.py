"""Two real processes, with two devices each, train as one process with one device does."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

WORKER = pathlib.Path(__file__).parent / 'worker.py'


def free_address():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return f'127.0.0.1:{probe.getsockname()[1]}'


def results(work, count, devices):
    """The lines of four words that each of `count` processes prints."""
    flags = f'--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0'
    environment = {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    command, found = [sys.executable, str(WORKER), work, free_address(), str(count)], []
    pipes = {'env': environment, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    processes = [subprocess.Popen([*command, str(index)], **pipes) for index in range(count)]
    try:
        for process in processes:
            out, error = process.communicate(timeout=400)
            assert process.returncode == 0, error[-2000:]
            found.append([line.split() for line in out.splitlines() if len(line.split()) == 4])
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return found


@pytest.mark.slow
def test_two_processes_train_as_one():
    (one,) = results('steps', 1, 1)
    first, second = results('steps', 2, 2)
    assert first == second
    assert [row[:2] for row in first] == [['None-False', '4'], ['None-True', '4'], ['4-False', '4'], ['16-False', '4']]
    for row, expected in zip(first, one, strict=True):
        assert [float(x) for x in row[2:]] == pytest.approx([float(x) for x in expected[2:]], rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif('TFDS_DATA_DIR' not in os.environ, reason='TFDS_DATA_DIR is not set')
@pytest.mark.parametrize(('processes', 'devices'), [(1, 1), (2, 2)])
def test_both_loaders_give_the_same_weights_after_an_epoch_of_cifar10(processes, devices):
    found = results('loaders', processes, devices)
    assert all(rows == found[0] for rows in found)
    resident, streaming = found[0]
    assert (resident[0], streaming[0]) == ('ResidentLoader', 'StreamingLoader')
    assert resident[1:] == streaming[1:]
    assert int(resident[1]) == processes * devices

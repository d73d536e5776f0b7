"""Starts a Python program in several processes that find each other through `cluster.join`."""

import os
import socket
import subprocess
import sys


def free_address():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return f'127.0.0.1:{probe.getsockname()[1]}'


def environment(devices=1):
    flags = f'--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0'
    return {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}


def start(command, count, *, devices=1):
    """Starts `command` `count` times, with `--coordinator`, `--processes` and `--process` if there are several."""
    address, started = free_address(), []
    pipes = {'env': environment(devices), 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    for index in range(count):
        flags = [f'--coordinator={address}', f'--processes={count}', f'--process={index}'] if count > 1 else []
        started.append(subprocess.Popen([sys.executable, *command, *flags], **pipes))
    return started


def finish(started, timeout=400):
    """The status, the output and the errors of each process."""
    try:
        outputs = [process.communicate(timeout=timeout) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [(process.returncode, *output) for process, output in zip(started, outputs, strict=True)]

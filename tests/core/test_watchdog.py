import pathlib
import socket
import threading

import pytest
import several_processes

from rfn_jax.core import watchdog

WORKER = str(pathlib.Path(__file__).parent / 'watchdog_worker.py')


def test_a_process_that_hangs_is_named_once():
    outcomes = several_processes.finish(several_processes.start([WORKER], 3))
    assert [status for status, _, _ in outcomes] == [0, 0, 0], outcomes
    message = f'nothing has happened for 1 s: the others wait for process 1 on {socket.gethostname()} (3 behind)'
    assert [out.strip() for _, out, _ in outcomes] == [str([message]), '[]', '[]']


def test_processes_that_are_at_the_same_unit_wait_for_the_devices():
    assert watchdog._describe({'0': '4 a', '1': '4 b'}, 300.0).endswith(
        'all processes wait for the devices, or compile'
    )
    assert watchdog._describe({'0': '4 a', '10': '1 b', '2': '2 c'}, 3).endswith(
        'the others wait for process 2 on c (2 behind), process 10 on b (3 behind)'
    )


def test_one_process_is_not_watched():
    before = threading.enumerate()
    with watchdog.watched(pytest.fail, every_s=0.01, quiet_s=0.01):
        assert threading.enumerate() == before

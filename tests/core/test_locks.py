import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time

import pytest

from rfn_jax.core import errors, locks

HOLD = """
import sys, time
from rfn_jax.core import locks
with locks.held(sys.argv[1]):
    print('held', flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def other_process(path):
    """Another process that holds the lock."""
    with subprocess.Popen([sys.executable, '-c', HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == 'held\n'
            yield process
        finally:
            process.kill()


def refused(path, message):
    with pytest.raises(errors.RunError, match=message) as caught, locks.held(path):
        pass
    return str(caught.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'training.lock'


def test_a_lock_says_who_holds_it_and_is_gone_afterwards(tmp_path):
    path = tmp_path / 'folder' / 'training.lock'
    with locks.held(path):
        holder = json.loads(path.read_text())
        assert (holder['host'], holder['pid']) == (socket.gethostname(), os.getpid())
    assert not path.exists()
    with pytest.raises(ZeroDivisionError), locks.held(path):
        raise ZeroDivisionError
    assert not path.exists()


def test_a_running_process_keeps_its_lock_and_a_killed_one_loses_it(path):
    with other_process(path) as process:
        message = (
            f'training.lock is held by process {process.pid} on host .*: wait until it is done. If .* delete the file'
        )
        caught = refused(path, message)
        assert '\n' not in caught
        assert str(path) in caught
        process.kill()
        process.wait()
        assert path.exists()  # left behind
        with locks.held(path):
            assert json.loads(path.read_text())['pid'] == os.getpid()
    assert not path.exists()


def test_a_lock_of_another_host_is_reported(path):
    path.write_text(json.dumps({'host': 'elsewhere', 'pid': 17}))
    refused(path, r'is held by process 17 on host elsewhere.* delete the file, or try again in ten minutes')
    path.unlink()  # as the message advises
    with locks.held(path):
        pass
    assert not list(path.parent.iterdir())


def test_a_lock_that_was_left_on_another_host_expires(path):
    path.write_text(json.dumps({'host': 'elsewhere', 'pid': 17}))
    os.utime(path, (time.time() - locks.EXPIRED_S - 60,) * 2)
    with locks.held(path):
        assert json.loads(path.read_text())['pid'] == os.getpid()


def test_a_lock_that_is_held_does_not_expire(path, monkeypatch):
    monkeypatch.setattr(locks, 'TOUCHED_EVERY_S', 0.01)
    with locks.held(path):
        os.utime(path, (0, 0))
        waited = time.monotonic()
        while path.stat().st_mtime < 1 and time.monotonic() - waited < 10:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1


def test_a_lock_of_another_container_on_this_host_is_taken_over(path):
    with locks.held(path):
        left = json.loads(path.read_text())
    if not left['boot']:
        pytest.skip('this system has no boot identifier')
    path.write_text(json.dumps({**left, 'host': 'a-container'}))
    with locks.held(path):
        assert json.loads(path.read_text())['host'] == socket.gethostname()


def test_a_holder_whose_file_was_deleted_leaves_that_of_its_successor(path):
    with locks.held(path):
        path.unlink()  # as the message advises
        path.write_text('of a successor')
    assert path.read_text() == 'of a successor'


@pytest.mark.parametrize('content', ['', '{', '[1]', '{"pid": 1}'])
def test_a_damaged_lock_is_taken_over(path, content):
    path.write_text(content)
    with locks.held(path):
        pass
    assert not path.exists()


def test_a_lock_that_was_just_deleted_is_not_held(path, monkeypatch):
    lock = fcntl.flock

    def late(descriptor, operation):
        path.unlink()  # by its holder, who is done
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, 'flock', late)
    refused(path, 'try again')


def test_a_folder_that_cannot_be_created_is_a_run_error(tmp_path):
    (tmp_path / 'file').write_text('')
    refused(tmp_path / 'file' / 'training.lock', r'could not write .*file/training\.lock')


def test_nothing_is_locked_in_a_bucket():
    with locks.held('gs://bucket/training.lock'), locks.held('gs://bucket/training.lock'):
        pass

"""Locks: files with which one process keeps others from doing the same work at the same time."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import tempfile
import threading
from collections.abc import Iterator

from rfn_jax.core import errors, io

TOUCHED_EVERY_S, EXPIRED_S = 60, 600


@contextlib.contextmanager
def held(path: os.PathLike[str] | str) -> Iterator[None]:
    """Holds the lock `path` while the body runs.

    The file says which process holds the lock, and is touched every minute. The operating system releases the lock when that
    process ends, however it ends. A file left behind by a process on this host, or in another container on it, is taken over
    at once; one that was left behind on another host, after it has not been touched for ten minutes. In a bucket (`gs://`),
    and on a file system without locks, nothing is locked: there, do not give two processes the same work.

    Args:
      path: The file; it is created, along with its folder, and deleted afterwards.

    Raises:
      RunError: Another process holds the lock, or may hold it on another host; or the file cannot be written.
    """
    if io.is_remote(path):
        yield
        return
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(path)
    except OSError as error:
        raise errors.RunError(f'could not write {path}: {io.reason(error)}') from error
    done = threading.Event()
    toucher = threading.Thread(target=_touch_until, args=(done, descriptor), daemon=True)
    toucher.start()
    try:
        yield
    finally:
        done.set()
        toucher.join()  # before the descriptor can stand for another file
        with contextlib.suppress(OSError):
            # Someone may have deleted the file, and another process have created it anew.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                path.unlink()
        os.close(descriptor)


def _acquire(path: pathlib.Path) -> int:
    """Acquires the lock and returns the descriptor of the open file, which holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(path, descriptor)
        here = {'host': socket.gethostname(), 'boot': _boot(), 'pid': os.getpid()}
        holder = _read_holder(path)
        same_system = bool(here['boot']) and holder.get('boot') == here['boot']
        if not same_system and holder.get('host', here['host']) != here['host'] and _age_s(path) < EXPIRED_S:
            raise _held_error(path, holder)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(here).encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _touch_until(done: threading.Event, descriptor: int) -> None:
    """Says every minute that the holder of a lock still exists."""
    while not done.wait(TOUCHED_EVERY_S):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _age_s(path: pathlib.Path) -> float:
    """Returns how long ago a file was touched, by the clock of its file system."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix='.now.') as now:
        return os.stat(now.name).st_mtime - path.stat().st_mtime


def _lock(path: pathlib.Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _held_error(path, _read_holder(path)) from error
    except OSError:  # a file system without locks
        return
    if os.fstat(descriptor).st_nlink == 0:  # its holder has finished and deleted it in the meantime
        raise errors.RunError(f'{path} was released just now; try again')


def _read_holder(path: pathlib.Path) -> dict:
    """Returns the host and process that hold a lock; empty if its file is just being written or was left damaged."""
    try:
        return io.read_json_object(path)
    except errors.InputError:
        return {}


def _boot() -> str:
    """The identifier of the running system, which all its containers share; empty where there is none."""
    try:
        return pathlib.Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()
    except OSError:
        return ''


def _held_error(path: pathlib.Path, holder: dict) -> errors.RunError:
    if not holder:
        return errors.RunError(f'{path} has just been acquired by another process, which does the same work')
    who = f'process {holder.get("pid", "unknown")} on host {holder.get("host", "unknown")}'
    return errors.RunError(
        f'{path} is held by {who}, which is doing the same work: wait until it is done. If that process no longer exists, '
        'delete the file, or try again in ten minutes'
    )

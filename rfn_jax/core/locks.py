"""Locks: files by which one process keeps others from doing the same work at the same time."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from rfn_jax.core import errors, io


@contextlib.contextmanager
def held(path: os.PathLike | str) -> Iterator[None]:
    """Holds the lock `path` while the body runs.

    The file says which process holds it. The operating system lets go of it when that process ends, however it ends: what a
    process of this host left behind is taken over. In a bucket (`gs://`), and on a file system without locks, nothing is
    locked: there, two processes must not be given the same work.

    Args:
      path: The file; made, with its folder, and deleted again.

    Raises:
      RunError: Another process holds it, or may hold it on another host; or the file cannot be written.
    """
    if io.is_remote(path):
        yield
        return
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _taken(path)
    except OSError as error:
        raise errors.RunError(f'could not write {path}: {io.reason(error)}') from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _taken(path: pathlib.Path) -> int:
    """Takes the lock; returns the open file, which holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(path, descriptor)
        host = socket.gethostname()
        if (holder := _holder(path)).get('host', host) != host:
            raise _refused(path, holder)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({'host': host, 'pid': os.getpid()}).encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(path: pathlib.Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _refused(path, _holder(path)) from error
    except OSError:  # a file system without locks
        return
    if os.fstat(descriptor).st_nlink == 0:  # its holder deleted it meanwhile, and is done
        raise errors.RunError(f'{path} was let go of this very moment; try again')


def _holder(path: pathlib.Path) -> dict:
    """Host and process of a lock; empty if it is being made, or was left damaged."""
    try:
        return io.read_json_object(path)
    except errors.InputError:
        return {}


def _refused(path: pathlib.Path, holder: dict) -> errors.RunError:
    who = f'process {holder.get("pid", "unknown")} on host {holder.get("host", "unknown")}'
    return errors.RunError(
        f'{path} is held by {who}, which is at the same work: wait until it is done, or delete that file if the process is '
        'gone'
    )

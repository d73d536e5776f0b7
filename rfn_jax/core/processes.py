"""Several processes that run the same program on the devices of several hosts: who reads and writes, and who knows what.

All processes call the same functions in the same order. The first process alone reads and writes the work directory: what it
finds there reaches the others through `on_first` and `arrays_from_first`, so that all take the same decisions, and hosts need
no common file system. With one process, these functions only call what they are given.
"""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from rfn_jax.core import errors

P = ParamSpec('P')
R = TypeVar('R')
CHUNK = 1 << 28  # bytes that are sent at once
ERRORS = {'InputError': errors.InputError, 'RunError': errors.RunError}

_alone = False  # whether this process runs a function that the others do not run


def is_first() -> bool:
    """Returns whether this is the first process, which reads and writes files and reports progress."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def are_several() -> bool:
    """Returns whether what is called now runs in several processes."""
    return not _alone and jax.distributed.is_initialized() and jax.process_count() > 1


def count() -> int:
    """Returns the number of processes that run what is called now."""
    return jax.process_count() if are_several() else 1


def on_first(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function run in the first process only; all processes return its result, or raise its error.

    Args:
      function: A function that returns plain values as in JSON, with lists rather than tuples. What it calls may be made
        with `on_first` as well. With several processes it must not use devices of other processes.

    Returns:
      A function that raises what `function` raises in the first process; if that is no `InputError`, the others raise a
      `RunError`.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        if not are_several():
            return function(*args, **kwargs)
        outcome: dict[str, Any] = {}
        if is_first():
            try:
                with _running_alone():
                    outcome = {'result': function(*args, **kwargs)}
            except (errors.InputError, errors.RunError) as error:
                kind = 'InputError' if isinstance(error, errors.InputError) else 'RunError'
                outcome = {'error': kind, 'message': str(error)}
            except Exception as error:
                message = f'{type(error).__name__} in process 0: {error}'
                _broadcast(json.dumps({'error': 'RunError', 'message': message}).encode())
                raise
        outcome = json.loads(_broadcast(json.dumps(outcome).encode()))
        if 'error' in outcome:
            raise ERRORS[outcome['error']](outcome['message'])
        result: R = outcome['result']
        return result

    return wrapper


def arrays_from_first(read: Callable[[], Any], like: Any) -> Any:
    """Returns a pytree of arrays that the first process reads, in all processes; raises like `on_first`.

    Args:
      read: Returns the pytree; called in the first process only.
      like: A pytree of the same structure, whose leaves have the same shapes and types.

    Returns:
      What `read` returns in the first process, and the same as NumPy arrays in the others.
    """
    if not are_several():
        return read()
    found = []

    def check() -> None:
        found.append(read())
        given, expected = (
            [(x.shape, np.dtype(x.dtype).name) for x in jax.tree.leaves(tree)] for tree in (found[0], like)
        )
        if given != expected:
            raise errors.RunError(f'read arrays {given!s:.200}, where {expected!s:.200} were expected')

    on_first(check)()
    leaves, structure = jax.tree.flatten(like)
    content = b''.join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found))
    content = _broadcast(content)
    if found:
        return found[0]
    arrays, start = [], 0
    for leaf in leaves:
        size = np.dtype(leaf.dtype).itemsize * int(np.prod(leaf.shape))
        arrays.append(np.frombuffer(content[start : start + size], leaf.dtype).reshape(leaf.shape))
        start += size
    return jax.tree.unflatten(structure, arrays)


@contextlib.contextmanager
def entered_on_first(make: Callable[[], contextlib.AbstractContextManager]) -> Iterator[None]:
    """Enters a context in the first process only, such as that of a lock; raises like `on_first`."""
    with contextlib.ExitStack() as stack:
        on_first(lambda: _ignore(stack.enter_context(make())))()
        yield


def share_of(units: int) -> np.ndarray:
    """Returns which units of work, counted from 0, this process does: every n-th one if there are n processes."""
    return np.arange(jax.process_index() if are_several() else 0, units, count())


def gather(mine: np.ndarray, units: int) -> np.ndarray:
    """Returns the results of all units of work, in every process.

    Args:
      mine: The results of the units in `share_of(units)`, in that order, along the first axis; a process without any gives
        an array of the same type and of the same other axes.
      units: Number of units.
    """
    if not are_several() or not units:
        return mine
    most = -(-units // count())
    padded = np.zeros((most, *mine.shape[1:]), mine.dtype)
    padded[: len(mine)] = mine
    content = np.frombuffer(padded.tobytes(), np.uint8)
    everything = np.asarray(multihost_utils.process_allgather(content))
    by_process = np.frombuffer(everything.tobytes(), mine.dtype).reshape(-1, *padded.shape)
    return np.swapaxes(by_process, 0, 1).reshape(-1, *mine.shape[1:])[:units]


def check_same(what: str, digest: str) -> None:
    """Checks that all processes have the same inputs.

    Raises:
      InputError: This process has others than the first one; processes that have the same wait for the end of the run.
    """
    if are_several() and on_first(lambda: digest)() != digest:
        raise errors.InputError(f'{what} of process {jax.process_index()} differ from those of process 0')


@contextlib.contextmanager
def _running_alone() -> Iterator[None]:
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def _ignore(value: object) -> None:
    del value


def _broadcast(content: bytes) -> bytes:
    """Returns the content that the first process has; the others give anything."""
    whole, rest = map(int, multihost_utils.broadcast_one_to_all(np.array(divmod(len(content), CHUNK), np.int32)))
    parts = []
    for number, size in enumerate([CHUNK] * whole + [rest] * bool(rest)):
        part = content[number * CHUNK :][:size] if is_first() else bytes(size)
        parts.append(np.asarray(multihost_utils.broadcast_one_to_all(np.frombuffer(part, np.uint8))).tobytes())
    return b''.join(parts)

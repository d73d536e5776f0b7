"""Preemption: SIGTERM asks a run to save its state and to end, so that the same command can continue it later.

Work asks `is_requested` between units of work. With several processes, a signal to one of them stops all of them before the
same unit: JAX's preemption service tells the others.
"""

import contextlib
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from rfn_jax.core import errors, processes

_requested = False
_units = 0


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Takes notice of SIGTERM while the context is open; with several processes, JAX does from `initialize` on."""
    global _requested
    _requested = False
    if processes.are_several():
        yield
        return
    before = signal.signal(signal.SIGTERM, _request)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_requested() -> bool:
    """Returns whether to stop now; all processes must ask equally often, before each unit of work."""
    global _units
    _units += 1
    if processes.are_several():
        if not jax.config.jax_enable_preemption_service:  # as by `cluster.join`
            return False
        return multihost_utils.reached_preemption_sync_point(_units)
    return _requested


def units_begun() -> int:
    """Returns how often this process has asked."""
    return _units


def check() -> None:
    """Stops if that is requested, between units of work that need not be saved.

    Raises:
      PreemptedError: It is.
    """
    if is_requested():
        raise errors.PreemptedError('stopped by SIGTERM; run the same command again to continue')


def _request(number: int, frame: object) -> None:
    global _requested
    _requested = True

"""A watchdog over the processes of a run: when nothing happens any more, it names those that are behind."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import jax

from rfn_jax.core import preemption, processes

KEY = 'rfn_jax/progress/'


@contextlib.contextmanager
def watched(report: Callable[[str], None], *, every_s: float = 10.0, quiet_s: float = 300.0) -> Iterator[None]:
    """Compares how many units of work the processes have begun while the context is open; one process is not watched.

    The first process reports once if no process begins another unit for `quiet_s` seconds: those with fewer units than the
    others are what the others wait for. If all have begun equally many, all wait for the devices, or compile.

    Args:
      report: What to do with the message.
      every_s: Seconds between two comparisons.
      quiet_s: Seconds without progress before a report.
    """
    if not processes.are_several():
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(done, report, every_s, quiet_s), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _watch(done: threading.Event, report: Callable[[str], None], every_s: float, quiet_s: float) -> None:
    client = jax._src.distributed.global_state.client  # there is no public way to the store that all processes share
    own = f'{KEY}{jax.process_index()}'
    last, since, reported = None, time.monotonic(), False
    while not done.wait(every_s):
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the run is ending
            client.key_value_set(own, f'{preemption.units_begun()} {socket.gethostname()}', allow_overwrite=True)
            if not processes.is_first():
                continue
            found = {key.removeprefix(KEY): value for key, value in client.key_value_dir_get(KEY)}
            if found != last:
                last, since, reported = found, time.monotonic(), False
            elif not reported and time.monotonic() - since >= quiet_s:
                reported = True
                report(_describe(found, quiet_s))


def _describe(found: Mapping[str, str], quiet_s: float) -> str:
    """One line for the progress of each process, `'<units> <host>'` by its number."""
    units = {process: int(value.split(' ', 1)[0]) for process, value in found.items()}
    most, start = max(units.values()), f'nothing has happened for {quiet_s:g} s'
    behind = [
        f'process {process} on {found[process].split(" ", 1)[1]} ({most - count} behind)'
        for process, count in sorted(units.items(), key=lambda item: int(item[0]))
        if count < most
    ]
    if not behind:
        return f'{start}: all processes wait for the devices, or compile'
    return f'{start}: the others wait for {", ".join(behind)}'

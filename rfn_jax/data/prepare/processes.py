"""Work spread over processes, which end with the one that started them, however that ends."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import process
from typing import TypeVar

from rfn_jax.core import errors

Task = TypeVar('Task')
Result = TypeVar('Result')


def results(work: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """Yields `work(task)` for each task, as they finish.

    With one worker, this process does the work. After an error no further task is started.

    Args:
      work: A function of a module.
      tasks: Its arguments.
      workers: Number of processes. They are spawned, so a script that calls this needs `if __name__ == '__main__':`.

    Raises:
      RunError: A process died.
    """
    if min(workers, len(tasks)) <= 1:
        yield from map(work, tasks)
        return
    executor = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=multiprocessing.get_context('spawn'), initializer=_end_with_parent
    )
    wait = True
    try:
        futures = [executor.submit(work, task) for task in tasks]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
    except process.BrokenProcessPool as error:
        raise errors.RunError(
            'a worker process died, perhaps for lack of memory; the same command continues, and needs less memory with fewer '
            '--workers'
        ) from error
    except (KeyboardInterrupt, GeneratorExit):
        wait = False
        raise
    finally:
        executor.shutdown(wait=wait, cancel_futures=True)


def _end_with_parent() -> None:
    """Ends this process with its parent, which alone reacts to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

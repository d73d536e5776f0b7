"""Messages and progress: bars on a terminal, plain lines in a log."""

import contextlib
import time
from collections.abc import Callable, Iterator

import rich.console
import rich.progress


class Console:
    """Where a run reports what it is doing.

    Args:
      console: A rich console; by default one that writes to standard output.
      lines_every_s: In a log, the minimum time between two lines of one task, in seconds.
      quiet: Whether the default console shows nothing.
    """

    def __init__(
        self, console: rich.console.Console | None = None, *, lines_every_s: float = 20.0, quiet: bool = False
    ):
        self.rich = rich.console.Console(highlight=False, soft_wrap=True, quiet=quiet) if console is None else console
        self._lines_every_s = lines_every_s

    def info(self, message: str) -> None:
        """Prints one line, literally."""
        self.rich.print(message, markup=False, emoji=False)

    @contextlib.contextmanager
    def task(self, description: str, total: int, *, done: int = 0) -> Iterator[Callable[..., None]]:
        """Shows the progress of a task while it runs.

        Args:
          description: What the task does, such as `'train resnet-rfn seed 0'`.
          total: The number of units of work.
          done: How many of them are already done.

        Yields:
          `advance(**values)`: call it after each unit, with figures to show, such as `loss=0.12`.
        """
        show = self._bar if self.rich.is_terminal else self._lines
        with show(description, total, done) as advance:
            yield advance

    @contextlib.contextmanager
    def _bar(self, description: str, total: int, done: int) -> Iterator[Callable[..., None]]:
        columns = (
            rich.progress.TextColumn('{task.description}', markup=False),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn('{task.fields[values]}', markup=False),
        )
        with rich.progress.Progress(*columns, console=self.rich, refresh_per_second=4) as bar:
            task = bar.add_task(description, total=total, completed=done, values='')
            yield lambda **values: bar.update(task, advance=1, values=_format(values))

    @contextlib.contextmanager
    def _lines(self, description: str, total: int, done: int) -> Iterator[Callable[..., None]]:
        start = last = time.monotonic()

        def advance(**values):
            nonlocal done, last
            done += 1
            now = time.monotonic()
            if done == total or now - last >= self._lines_every_s:
                last = now
                self.info(f'{description}: {done}/{total} {_format(values)} ({now - start:.0f} s)'.replace('  ', ' '))

        yield advance


def _format(values: dict[str, float]) -> str:
    return ' '.join(f'{name} {value:.4g}' for name, value in values.items())

"""Metrics in JSON lines: one object an epoch, appended as training goes on."""

import json
import os
import pathlib

from rfn_jax.core import errors, files


class MetricsLog:
    """A file with one JSON object a line, each with the key `epoch`.

    Args:
      path: The file; made when the first line is written.
      keep_epochs: Lines of later epochs, and lines cut short by a kill, are dropped: a resumed run writes them again.
    """

    def __init__(self, path: os.PathLike | str, *, keep_epochs: int):
        self.path = pathlib.Path(path)
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _epoch(line) <= keep_epochs]
            files.write_bytes(self.path, ''.join(f'{line}\n' for line in kept).encode())

    def write(self, epoch: int, **values: float) -> None:
        """Appends the values of an epoch.

        Raises:
          RunError: The file cannot be written.
        """
        try:
            with self.path.open('a', encoding='utf-8') as file:
                file.write(json.dumps({'epoch': epoch, **values}) + '\n')
        except OSError as error:
            raise errors.RunError(f'could not write {self.path}: {error.strerror or error}') from error


def _epoch(line: str) -> float:
    try:
        return json.loads(line)['epoch']
    except (ValueError, KeyError, TypeError):
        return float('inf')

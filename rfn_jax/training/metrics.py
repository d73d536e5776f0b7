"""Metrics in JSON lines: one object an epoch, added as training goes on."""

import json
import os

from rfn_jax.core import io


class MetricsLog:
    """A file with one JSON object a line, each with the key `epoch`.

    Args:
      path: The file; made when the first line is written.
      keep_epochs: Lines of later epochs, and lines that are damaged, are dropped: a resumed run writes them again.
    """

    def __init__(self, path: os.PathLike | str, *, keep_epochs: int):
        self.path = io.absolute(path)
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self._lines = [line for line in lines if _epoch(line) <= keep_epochs]

    def write(self, epoch: int, **values: float) -> None:
        """Adds the values of an epoch; the file is whole at any time.

        Raises:
          RunError: The file cannot be written.
        """
        self._lines.append(json.dumps({'epoch': epoch, **values}))
        io.write_bytes(self.path, ''.join(f'{line}\n' for line in self._lines).encode())


def _epoch(line: str) -> float:
    try:
        return json.loads(line)['epoch']
    except (ValueError, KeyError, TypeError):
        return float('inf')

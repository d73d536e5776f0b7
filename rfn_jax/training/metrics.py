"""Metrics in JSON lines: one object per epoch, added as training proceeds."""

import json
import os
from collections.abc import Collection

from rfn_jax.core import io, processes


class MetricsLog:
    """A file with one JSON object per line, each with the key `epoch`, in the order of the epochs.

    Args:
      path: The file; created when the first line is written.
      keep: The epochs whose lines are kept. Other lines and damaged lines are dropped at the first write.

    Raises:
      InputError: The file exists but cannot be read.
    """

    def __init__(self, path: os.PathLike[str] | str, *, keep: Collection[int]):
        self.path = io.absolute(path)
        content = io.read_bytes(self.path) if processes.is_first() and self.path.exists() else b''
        lines = content.decode(errors='replace').splitlines()
        self._lines = {epoch: line for line in lines if (epoch := _epoch(line)) in keep}

    def write(self, epoch: int, **values: float) -> None:
        """Adds the values of an epoch, replacing any existing ones; the file is complete at all times.

        Raises:
          RunError: The file cannot be written.
        """
        self._lines[epoch] = json.dumps({'epoch': epoch, **values})
        io.write_bytes(self.path, ''.join(f'{self._lines[key]}\n' for key in sorted(self._lines)).encode())


def _epoch(line: str) -> int | None:
    """Returns the epoch of a line; None if the line is damaged."""
    try:
        epoch = json.loads(line)['epoch']
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return epoch if type(epoch) is int else None

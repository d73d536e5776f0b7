"""The error of an output that cannot be written, with what to do about it."""

import contextlib
import os
from collections.abc import Iterator

from rfn_jax.core import errors, io


@contextlib.contextmanager
def to(path: os.PathLike[str] | str) -> Iterator[None]:
    """Reports what goes wrong while the body writes to `path`, such as a full disk, as an `InputError`."""
    hint = 'free space or choose another --out; the same command continues'
    try:
        yield
    except errors.RunError as error:
        raise errors.InputError(f'{error}; {hint}') from error
    except (OSError, RuntimeError) as error:  # ArrayRecord raises RuntimeError, with details after a semicolon
        reason = ' '.join(io.reason(error).split(';')[0].split())
        raise errors.InputError(f'could not write {path}: {reason}; {hint}') from error

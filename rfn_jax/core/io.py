"""Files that are either complete or absent, on a local disk or in a bucket (`gs://`).

A local file is written under a temporary name in the same folder and then renamed; a bucket stores objects atomically.
"""

import importlib.util
import json
import os
import pathlib
import tempfile
import zipfile
import zlib
from io import BytesIO

import numpy as np
from etils import epath

from rfn_jax.core import checks, errors

BUCKETS = {'gs': 'gcsfs', 's3': 's3fs'}  # scheme: package that provides access
# What NumPy and zipfile raise for a file that is truncated or holds something else.
DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error)


def write_bytes(path: os.PathLike[str] | str, content: bytes) -> None:
    """Writes `content` to `path` so that a reader sees either the old file or the complete new one.

    Raises:
      RunError: The file could not be written (no space, no permission); an existing file is left untouched.
    """
    try:
        if is_remote(path):
            epath.Path(path).write_bytes(content)
        else:
            _replace(pathlib.Path(os.path.realpath(path)), content)  # a symbolic link remains one
    except (OSError, ImportError) as error:  # access to a bucket needs an extra package
        raise errors.RunError(f'could not write {path}: {reason(error)}') from error


def _replace(path: pathlib.Path, content: bytes) -> None:
    temporary = None
    try:
        _check_is_file_or_missing(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f'.{path.name}.', delete=False) as file:
            temporary = file.name
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if temporary:  # already renamed, unless the write failed or was interrupted
            pathlib.Path(temporary).unlink(missing_ok=True)


def check_writable(path: os.PathLike[str] | str) -> None:
    """Checks that `write_bytes` could write to a local `path`, without changing it; buckets are not checked.

    Raises:
      RunError: It could not.
    """
    if is_remote(path):
        return
    path = pathlib.Path(os.path.realpath(path))
    try:
        _check_is_file_or_missing(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f'.{path.name}.'):
            pass
    except OSError as error:
        raise errors.RunError(f'could not write {path}: {reason(error)}') from error


def reason(error: Exception) -> str:
    """Returns what the operating system or a library reports about a file, without the path."""
    return getattr(error, 'strerror', None) or str(error)


def _check_is_file_or_missing(path: pathlib.Path) -> None:
    if path.exists() and not path.is_file():
        raise OSError('it already exists and is not a file')


def is_remote(path: os.PathLike[str] | str) -> bool:
    """Returns whether a path is in a bucket."""
    return '://' in os.fspath(path)


def absolute(path: os.PathLike[str] | str) -> epath.Path:
    """Returns the absolute path, with `~` expanded to the home directory; a path in a bucket is returned unchanged.

    Raises:
      InputError: It is not a path, or it is in a kind of bucket that cannot be used here.
    """
    if not isinstance(path, str | os.PathLike):
        raise errors.InputTypeError(f'a path must be a string or a path object, got {path!r:.80}')
    if not is_remote(path):
        return epath.Path(os.path.abspath(os.path.expanduser(path)))
    scheme = os.fspath(path).split('://')[0]
    checks.one_of('kind of bucket', scheme, BUCKETS)
    if importlib.util.find_spec(BUCKETS[scheme]) is None:
        raise errors.InputError(f'{path} needs a package that is not installed: pip install {BUCKETS[scheme]}')
    return epath.Path(path)


def read_bytes(path: os.PathLike[str] | str) -> bytes:
    """Reads the contents of a file.

    Raises:
      InputError: It is missing or unreadable.
    """
    try:
        return epath.Path(path).read_bytes()
    except (OSError, ImportError) as error:
        raise errors.InputError(f'could not read {path}: {reason(error)}') from error


def write_json(path: os.PathLike[str] | str, value) -> None:
    """Writes `value` as indented JSON with sorted keys, completely or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + '\n').encode())


def read_json(path: os.PathLike[str] | str):
    """Reads a JSON file.

    Raises:
      InputError: The file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(read_bytes(path).decode())
    except errors.InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise errors.InputError(f'{path} is not a JSON file: {error}') from error


def read_json_object(path: os.PathLike[str] | str) -> dict:
    """Reads a JSON file that holds an object.

    Raises:
      InputError: As for `read_json`; also if it holds something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise errors.InputError(f'{path} must hold a JSON object, but holds {value!r:.80}')
    return value


def npz_bytes(**arrays: np.ndarray) -> bytes:
    """Returns the contents of a compressed `.npz` file that holds the given arrays."""
    content = BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def npz_arrays(content: bytes) -> np.lib.npyio.NpzFile:
    """Returns the arrays in the contents of a `.npz` file, each read when it is accessed; nothing is unpickled.

    Raises:
      An error in `DAMAGED`: The contents are something else or truncated; also raised when an array is accessed.
    """
    return np.load(BytesIO(content), allow_pickle=False)

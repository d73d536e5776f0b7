"""Files that are whole or absent: written to a temporary name in the same folder, then renamed; and checksums."""

import csv
import hashlib
import io
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np

from rfn_jax.core import errors


def write_bytes(path: os.PathLike | str, content: bytes) -> None:
    """Writes `content` to `path` so that a reader finds either the old file or the whole new one.

    Raises:
      RunError: The file could not be written (no space, no permission); what was there before is untouched.
    """
    path = pathlib.Path(os.path.realpath(path))  # a link stays one
    temporary = None
    try:
        _check_is_file_or_free(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f'.{path.name}.', delete=False) as file:
            temporary = file.name
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise errors.RunError(f'could not write {path}: {error.strerror or error}') from error
    finally:
        if temporary:  # renamed by now, unless something failed or interrupted the write
            pathlib.Path(temporary).unlink(missing_ok=True)


def check_writable(path: os.PathLike | str) -> None:
    """Checks that `write_bytes` could write to `path`, which is left as it is.

    Raises:
      RunError: It could not.
    """
    path = pathlib.Path(os.path.realpath(path))
    try:
        _check_is_file_or_free(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f'.{path.name}.'):
            pass
    except OSError as error:
        raise errors.RunError(f'could not write {path}: {error.strerror or error}') from error


def _check_is_file_or_free(path: pathlib.Path) -> None:
    if path.exists() and not path.is_file():
        raise OSError('it is there already, and not a file')


def write_json(path: os.PathLike | str, value) -> None:
    """Writes `value` as indented JSON with sorted keys, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + '\n').encode())


def read_json(path: os.PathLike | str):
    """Reads a JSON file.

    Raises:
      InputError: The file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        raise errors.InputError(f'could not read {path}: {error.strerror or error}') from error
    except (ValueError, RecursionError) as error:
        raise errors.InputError(f'{path} is not a JSON file: {error}') from error


def write_csv(path: os.PathLike | str, columns: Sequence[str], rows: Iterable[Mapping]) -> None:
    """Writes rows as CSV with `\\n` line ends, whole or not at all; floats with six digits after the point.

    Args:
      path: Where to write.
      columns: The header, in order; each row has exactly these keys.
      rows: The rows.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator='\n')
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f'{value:.6f}' if isinstance(value, float) else value for name, value in row.items()})
    write_bytes(path, text.getvalue().encode())


def read_csv(path: os.PathLike | str) -> list[dict[str, str]]:
    """Reads a CSV file with a header into one dictionary of strings a row.

    Raises:
      InputError: The file is missing, unreadable or not CSV.
    """
    try:
        with pathlib.Path(path).open(newline='', encoding='utf-8') as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise errors.InputError(f'could not read {path}: {error.strerror or error}') from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise errors.InputError(f'{path} is not a CSV file: {error}') from error


def file_sha256(path: os.PathLike | str) -> str:
    """SHA-256 of the content of a file, in hexadecimal.

    Raises:
      InputError: The file cannot be read.
    """
    try:
        with pathlib.Path(path).open('rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
        raise errors.InputError(f'could not read {path}: {error.strerror or error}') from error


def array_digest(tree) -> str:
    """SHA-256 over the names, types, shapes and bytes of all leaves of a pytree of arrays, in hexadecimal."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(leaf)
        digest.update(f'{jax.tree_util.keystr(path)} {array.dtype} {array.shape}'.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

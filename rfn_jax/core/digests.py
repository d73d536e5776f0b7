"""SHA-256 of files, arrays and plain values, in hexadecimal."""

import hashlib
import json
import os
from collections.abc import Mapping

import jax
import numpy as np
from etils import epath

from rfn_jax.core import errors


def of_file(path: os.PathLike[str] | str) -> str:
    """SHA-256 of the contents of a file.

    Raises:
      InputError: The file cannot be read.
    """
    try:
        with epath.Path(path).open('rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
        raise errors.InputError(f'could not read {path}: {error.strerror or error}') from error


def of_arrays(tree) -> str:
    """SHA-256 of the names, types, shapes and bytes of all leaves of a pytree of arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(leaf)
        digest.update(f'{jax.tree_util.keystr(path)} {array.dtype} {array.shape}'.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def of_plain(value) -> str:
    """SHA-256 of plain values (those that JSON can hold), regardless of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def of_measured(config: Mapping[str, object]) -> str:
    """SHA-256 of the sections of a config that the measured tables may depend on."""
    return of_plain({name: section for name, section in config.items() if name != 'landscape'})


def of_bytes(content: bytes) -> str:
    """SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()

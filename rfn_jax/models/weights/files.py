"""Weight files: reads state dicts from the formats in which they are published, and writes safetensors."""

import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from rfn_jax.core import errors, io
from rfn_jax.models.weights import pickles, unpickling

# Entries in which checkpoints keep their weights; the first one present is used, so averaged weights are the last resort.
ENTRIES = (
    *('state_dict', 'model_state_dict', 'model_state', 'model', 'net', 'network', 'weights', 'params'),
    *('state_dict_ema', 'model_ema', 'ema_state_dict', 'params_ema', 'ema'),
)
# Prefixes added by data parallelism, compilation and training frameworks, and common names of a wrapped network.
PREFIXES = ('module.', '_orig_mod.', 'model.', 'net.', 'network.', 'backbone.')
COUNTERS = ('n_averaged',)  # entries that averaging adds to the weights

SAFETENSORS_DTYPES = {
    **{'BOOL': np.bool_, 'U8': np.uint8, 'U16': np.uint16, 'U32': np.uint32, 'U64': np.uint64},
    **{'I8': np.int8, 'I16': np.int16, 'I32': np.int32, 'I64': np.int64, 'C64': np.complex64},
    **{'F8_E4M3': jnp.float8_e4m3fn, 'F8_E5M2': jnp.float8_e5m2},
    **{'F16': np.float16, 'BF16': jnp.bfloat16, 'F32': np.float32, 'F64': np.float64},
}
PICKLE = b'\x80'  # the first instruction of a pickle since protocol 2
MAX_HEADER_SIZE = 100_000_000  # of a safetensors file, as in the safetensors library


def read_state_dict(path: os.PathLike[str] | str, entry: str | None = None) -> dict[str, np.ndarray]:
    """Reads weights from a file of `torch.save`, safetensors or `np.savez`, whatever its suffix.

    The format is recognized by the content. Prefixes that all keys share because the model was wrapped (`PREFIXES`, such as
    `module.`) are removed, and everything that is not a tensor is ignored. Nothing in the file is executed.

    Args:
      path: The file.
      entry: The entry of a checkpoint that holds the weights; by default, the first of `ENTRIES` that does, or the whole
        file if none does.

    Returns:
      Arrays by key, in the order and with the types that they have in the file.

    Raises:
      InputError: The file is missing, is damaged, has an unknown format, asks for code to be executed, or holds no weights.
    """
    path = pathlib.Path(path)
    reader = _choose_reader(path)
    tensors = _select_tensors(path, reader(path), entry)
    state = pickles.to_arrays(tensors) if reader is pickles.load else tensors
    return dict(zip(_strip_prefixes(list(state)), state.values(), strict=True))


def write_safetensors(
    path: os.PathLike[str] | str, state: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a state dict to a safetensors file, either completely or not at all.

    Args:
      path: Where to write.
      state: Arrays by key.
      metadata: Strings by name, for the header of the file.

    Raises:
      InputError: safetensors does not support the type of an array.
      RunError: The file could not be written.
    """
    tensors = {key: np.asarray(value, order='C') for key, value in state.items()}
    try:
        content = safetensors.numpy.save(tensors, dict(metadata or {}))
    except safetensors.SafetensorError as error:
        raise errors.InputError(f'could not write {path}: {error}') from error
    io.write_bytes(path, content)


def _choose_reader(path: pathlib.Path) -> Callable[[pathlib.Path], Any]:
    """The function that reads the format of a file."""
    try:
        with path.open('rb') as file:
            head = file.read(2**17)
    except OSError as error:
        raise errors.InputError(f'could not read {path}: {error.strerror or error}') from error
    if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') <= MAX_HEADER_SIZE:
        return _read_safetensors
    if head.startswith(pickles.ZIP):
        name = head[30 : 30 + int.from_bytes(head[26:28], 'little')]  # of the first member
        return _read_npz if name.endswith(b'.npy') else pickles.load
    if head.startswith(PICKLE):
        return pickles.load
    raise errors.InputError(f'{path} {_describe_unknown(head)}')


def _describe_unknown(head: bytes) -> str:
    """Says what is wrong with a file that has none of the supported formats."""
    text = head.lstrip(b'\xef\xbb\xbf \t\r\n')[:64].lower()
    if not head:
        return 'is empty'
    if text.startswith(b'version https://git-lfs'):
        return 'is a Git LFS pointer instead of the weights; fetch them with git lfs pull'
    if text.startswith((b'<!doctype', b'<html', b'<?xml')):
        return 'is a web page that was saved instead of the weights; download them again'
    if head[257:262] == b'ustar':
        return (
            'is a tar archive; if a version of PyTorch before 0.1.10 wrote it, load it with torch.load and save it with '
            'torch.save of a current version; otherwise unpack it'
        )
    return 'has an unknown format; supported are files of torch.save, safetensors and np.savez'


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        tensors = safetensors.deserialize(path.read_bytes())
        return {
            name: np.frombuffer(tensor['data'], SAFETENSORS_DTYPES[tensor['dtype']]).reshape(tensor['shape'])
            for name, tensor in tensors
        }
    except OSError as error:
        raise errors.InputError(f'could not read {path}: {error.strerror or error}') from error
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise errors.InputError(f'{path} is a damaged safetensors file: {error}') from error


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
            loaded = {name: arrays[name] for name in arrays}
    except Exception as error:  # NumPy raises many types of exceptions for a damaged file
        raise errors.InputError(
            f'{path} is damaged, or does not hold plain arrays written by np.savez: {error!r:.200}'
        ) from error
    return {
        name: np.asarray(array, array.dtype.newbyteorder('='), order='C')
        for name, array in loaded.items()
        if isinstance(array, np.ndarray) and array.dtype.kind in 'biufc'
    }


def _select_tensors(path: pathlib.Path, tree: Any, entry: str | None) -> dict[str, Any]:
    """The tensors in the entry of a file that holds the weights."""
    entries = {name: _tensors_in(value) for name, value in tree.items()} if isinstance(tree, dict) else {}
    entries = {name: tensors for name, tensors in entries.items() if tensors}
    if entry is not None:
        if entry not in entries:
            available = f'entries with tensors: {_join(entries)}' if entries else 'it has no entries with tensors'
            raise errors.InputError(f'{path} has no tensors in an entry {entry!r}; {available}')
        return entries[entry]
    chosen = next((entries[name] for name in ENTRIES if name in entries), None) or _tensors_in(tree)
    if not chosen:
        available = f'; entries with tensors: {_join(entries)}; choose one of them' if entries else ''
        raise errors.InputError(f'{path} holds no tensors at the top level or in the usual entries{available}')
    return chosen


def _join(names: Iterable[str]) -> str:
    return f'{", ".join(map(ascii, names)):.300}'


def _tensors_in(value: Any) -> dict[str, Any]:
    """The tensors in `value` if it is a dictionary; otherwise nothing."""
    if not isinstance(value, dict):
        return {}
    kinds = (np.ndarray, unpickling.Tensor)
    return {key: tensor for key, tensor in value.items() if isinstance(tensor, kinds) and key not in COUNTERS}


def _strip_prefixes(keys: list[str]) -> list[str]:
    """Removes the prefixes that all keys share."""
    while prefix := next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in keys)), None):
        keys = [key.removeprefix(prefix) for key in keys]
    return keys

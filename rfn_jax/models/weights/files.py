"""Weight files: state dicts out of the formats that they are published in, and into safetensors."""

import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from rfn_jax.core import errors, io
from rfn_jax.models.weights import pickles, unpickling

# Where checkpoints keep their weights, the first that is there; averaged weights are taken only if there are no others.
ENTRIES = (
    *('state_dict', 'model_state_dict', 'model_state', 'model', 'net', 'network', 'weights', 'params'),
    *('state_dict_ema', 'model_ema', 'ema_state_dict', 'params_ema', 'ema'),
)
# Of data parallelism, compilation, training frameworks, and the names that people give a wrapped network.
PREFIXES = ('module.', '_orig_mod.', 'model.', 'net.', 'network.', 'backbone.')
COUNTERS = ('n_averaged',)  # what averaging adds to the weights

SAFETENSORS = {
    **{'BOOL': np.bool_, 'U8': np.uint8, 'U16': np.uint16, 'U32': np.uint32, 'U64': np.uint64},
    **{'I8': np.int8, 'I16': np.int16, 'I32': np.int32, 'I64': np.int64, 'C64': np.complex64},
    **{'F8_E4M3': jnp.float8_e4m3fn, 'F8_E5M2': jnp.float8_e5m2},
    **{'F16': np.float16, 'BF16': jnp.bfloat16, 'F32': np.float32, 'F64': np.float64},
}
PICKLE = b'\x80'  # the first instruction of a pickle since protocol 2
LONGEST_HEADER = 100_000_000  # of a safetensors file, as its library has it


def read_state_dict(path: os.PathLike | str, entry: str | None = None) -> dict[str, np.ndarray]:
    """Reads the weights in a file of `torch.save`, safetensors or `np.savez`; the content says which, not the suffix.

    Prefixes that all keys have because the model was wrapped (`PREFIXES`, such as `module.`) are taken off, and what
    is not a tensor is left out. Nothing in the file is run.

    Args:
      path: The file.
      entry: The entry of a checkpoint that holds the weights; by default the first of `ENTRIES` that does, or the whole
        file if none does.

    Returns:
      Arrays by key, in the order and with the types they have in the file.

    Raises:
      InputError: The file is missing, damaged, of another format, asks for code to be run, or holds no weights.
    """
    path = pathlib.Path(path)
    reader = _reader(path)
    weights = _weights(path, reader(path), entry)
    state = pickles.arrays(weights) if reader is pickles.load else weights
    return dict(zip(_short_keys(list(state)), state.values(), strict=True))


def write_safetensors(
    path: os.PathLike | str, state: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a state dict as a safetensors file, whole or not at all.

    Args:
      path: Where to write.
      state: Arrays by key.
      metadata: Texts by name, for the header of the file.

    Raises:
      InputError: safetensors has no such type of array.
      RunError: The file could not be written.
    """
    tensors = {key: np.asarray(value, order='C') for key, value in state.items()}
    try:
        content = safetensors.numpy.save(tensors, dict(metadata or {}))
    except safetensors.SafetensorError as error:
        raise errors.InputError(f'could not write {path}: {error}') from error
    io.write_bytes(path, content)


def _reader(path: pathlib.Path) -> Callable[[pathlib.Path], Any]:
    """What reads the format that a file is in."""
    try:
        with path.open('rb') as file:
            head = file.read(2**17)
    except OSError as error:
        raise errors.InputError(f'could not read {path}: {error.strerror or error}') from error
    if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') <= LONGEST_HEADER:
        return _read_safetensors
    if head.startswith(pickles.ZIP):
        name = head[30 : 30 + int.from_bytes(head[26:28], 'little')]  # of the first member
        return _read_npz if name.endswith(b'.npy') else pickles.load
    if head.startswith(PICKLE):
        return pickles.load
    raise errors.InputError(f'{path} {_complaint(head)}')


def _complaint(head: bytes) -> str:
    """What is wrong with a file in none of the formats that are read."""
    text = head.lstrip(b'\xef\xbb\xbf \t\r\n')[:64].lower()
    if not head:
        return 'is empty'
    if text.startswith(b'version https://git-lfs'):
        return 'is a pointer of Git LFS in place of the weights; fetch them with git lfs pull'
    if text.startswith((b'<!doctype', b'<html', b'<?xml')):
        return 'is a web page that was saved in place of the weights; download them again'
    if head[257:262] == b'ustar':
        return (
            'is a tar archive; if it is of a PyTorch before 0.1.10, load it with torch.load and save it with torch.save of a '
            'current version, and otherwise unpack it'
        )
    return 'is in no format of weights that is known: a file of torch.save, safetensors and np.savez are'


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        tensors = safetensors.deserialize(path.read_bytes())
        return {
            name: np.frombuffer(tensor['data'], SAFETENSORS[tensor['dtype']]).reshape(tensor['shape'])
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
    except Exception as error:  # NumPy raises many types for a damaged file
        raise errors.InputError(f'{path} is damaged, or not plain arrays of np.savez: {error!r:.200}') from error
    return {
        name: np.asarray(array, array.dtype.newbyteorder('='), order='C')
        for name, array in loaded.items()
        if isinstance(array, np.ndarray) and array.dtype.kind in 'biufc'
    }


def _weights(path: pathlib.Path, tree: Any, entry: str | None) -> dict[str, Any]:
    """The tensors of the entry of a file that holds the weights."""
    entries = {name: _tensors(value) for name, value in tree.items()} if isinstance(tree, dict) else {}
    entries = {name: tensors for name, tensors in entries.items() if tensors}
    if entry is not None:
        if entry not in entries:
            known = f'it has them in {_listed(entries)}' if entries else 'it has no entries with tensors'
            raise errors.InputError(f'{path} has no tensors in an entry {entry!r}; {known}')
        return entries[entry]
    chosen = next((entries[name] for name in ENTRIES if name in entries), None) or _tensors(tree)
    if not chosen:
        named = f', but in {_listed(entries)}; name the right one' if entries else ''
        raise errors.InputError(f'{path} holds no tensors where a state dict has them{named}')
    return chosen


def _listed(names: Iterable[str]) -> str:
    return f'{", ".join(map(ascii, names)):.300}'


def _tensors(value: Any) -> dict[str, Any]:
    """The tensors in a state dict; nothing if it is none."""
    if not isinstance(value, dict):
        return {}
    kinds = (np.ndarray, unpickling.Tensor)
    return {key: tensor for key, tensor in value.items() if isinstance(tensor, kinds) and key not in COUNTERS}


def _short_keys(keys: list[str]) -> list[str]:
    """Keys without the prefixes that all of them have."""
    while prefix := next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in keys)), None):
        keys = [key.removeprefix(prefix) for key in keys]
    return keys

"""Reads the files that `torch.save` writes, without PyTorch and without executing anything in them.

Since PyTorch 1.6, such a file is a zip archive: `<name>/data.pkl` is a pickle that refers to storages by their keys, and
`<name>/data/<key>` holds the bytes of a storage. Before, it was a series of pickles (a magic number, the version of the
format, facts about the machine, the object, and the keys of its storages), followed by the number of elements and the bytes
of each storage.
"""

import io
import mmap
import os
import pathlib
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from rfn_jax.core import errors
from rfn_jax.models.weights import unpickling

ZIP = b'PK\3\4'
HEADER = struct.Struct(
    '<26xHH'
)  # of a member of a zip archive; it ends in the sizes of the name and of the extra field
MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
NUMEL = struct.Struct('<q')  # precedes a storage in the old format
MAX_VIEW_RATIO = 8  # limit of the bytes of all tensors relative to the bytes of their storages


def load(path: os.PathLike[str] | str) -> Any:
    """Reads the saved object; the elements of tensors stay in the file until `to_arrays` copies them.

    Args:
      path: A file that `torch.save` wrote and that holds a state dict or a training checkpoint.

    Returns:
      Dictionaries (only their items with string keys), lists, tuples, strings, numbers, bytes, None and
      `unpickling.Tensor`s. Anything else in a checkpoint, such as a namespace of options, becomes an `unpickling.Inert` or
      an `unpickling.Global`.

    Raises:
      InputError: The file cannot be read, is damaged, or needs more than tensors in plain containers.
    """
    path = pathlib.Path(path)
    try:
        with path.open('rb') as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        machine = unpickling.Machine()
        tree = _load_zip(content, machine) if content[: len(ZIP)] == ZIP else _load_stream(content, machine)
        needed = sum(tensor.nbytes for tensor in machine.tensors)
        stored = sum(storage.nbytes for storage in machine.storages.values())
        if needed > MAX_VIEW_RATIO * stored:
            raise unpickling.UnreadableError(f'holds tensors of {needed} bytes that are views of only {stored} bytes')
        return tree
    except OSError as error:
        raise errors.InputError(f'could not read {path}: {error.strerror or error}') from error
    except unpickling.UnreadableError as error:
        raise errors.InputError(f'{path} {error}') from error
    except (
        ArithmeticError,
        LookupError,
        NotImplementedError,
        TypeError,
        ValueError,
        struct.error,
        zipfile.BadZipFile,
    ) as error:
        raise errors.InputError(f'{path} is damaged or is not a PyTorch file: {error!r:.200}') from error


def to_arrays(tensors: Mapping[str, unpickling.Tensor]) -> dict[str, np.ndarray]:
    """Copies tensors out of the file from which they were loaded.

    Returns:
      Contiguous arrays by the names of the tensors; two names of the same tensor share one array.
    """
    copies = {tensor: tensor.array() for tensor in set(tensors.values())}
    return {name: copies[tensor] for name, tensor in tensors.items()}


def _load_zip(content: mmap.mmap, machine: unpickling.Machine) -> Any:
    with zipfile.ZipFile(content) as archive:
        entries = archive.infolist()
    members = {member.filename: member for member in entries}
    if len(members) < len(entries):
        raise unpickling.UnreadableError('is damaged: two of its members have the same name')
    if any(name.endswith(('/constants.pkl', '/model.json')) for name in members):
        raise unpickling.UnreadableError(
            'is a TorchScript archive, which is a program; if you trust it, use torch.jit.load and save only the state dict'
        )
    if sum(member.file_size for member in entries) > len(content):
        raise unpickling.UnreadableError('is damaged or compressed: its members are larger than the file')
    folders = [name.removesuffix('data.pkl') for name in members if re.fullmatch(r'[^/]+/data\.pkl', name)]
    if len(folders) != 1:
        raise unpickling.UnreadableError(
            f'is a zip archive with {len(folders)} members <name>/data.pkl, but torch.save writes exactly one'
        )

    def read(name: str) -> memoryview:
        if folders[0] + name not in members:
            raise unpickling.UnreadableError(f'is damaged: its member {name!r:.100} is missing')
        return _read_member(content, members[folders[0] + name])

    byteorder = bytes(read('byteorder')) if f'{folders[0]}byteorder' in members else b'little'
    if byteorder not in (b'little', b'big'):
        raise unpickling.UnreadableError(f'is damaged: its byte order is {byteorder!r:.100}')
    tree = machine.run(io.BytesIO(read('data.pkl')))
    for key, storage in machine.storages.items():
        storage.data, storage.byteorder = read(f'data/{key}'), byteorder.decode()
        if len(storage.data) < storage.nbytes:
            raise unpickling.UnreadableError(f'is damaged: its storage {key!r:.100} is truncated')
    return tree


def _read_member(content: mmap.mmap, member: zipfile.ZipInfo) -> memoryview:
    """Reads the bytes of a member of a zip archive, and verifies its checksum if it has one."""
    header = content[member.header_offset : member.header_offset + HEADER.size]
    if member.compress_type != zipfile.ZIP_STORED or len(header) < HEADER.size or not header.startswith(ZIP):
        raise unpickling.UnreadableError(f'is damaged or compressed: see its member {member.filename!r:.100}')
    start = member.header_offset + HEADER.size + sum(HEADER.unpack(header))
    data = memoryview(content)[start : start + member.file_size]
    if len(data) < member.file_size or (member.CRC and zlib.crc32(data) != member.CRC):
        raise unpickling.UnreadableError(f'is damaged: its member {member.filename!r:.100} does not match its checksum')
    return data


def _load_stream(content: mmap.mmap, machine: unpickling.Machine) -> Any:
    if unpickling.Machine().run(content) != MAGIC:
        raise unpickling.UnreadableError('is a pickle, but not one that torch.save wrote')
    if unpickling.Machine().run(content) != PROTOCOL:
        raise unpickling.UnreadableError('is a PyTorch file with an unknown version of the format')
    unpickling.Machine().run(content)  # facts about the machine; the numbers are little-endian on all machines
    tree = machine.run(content)
    keys = unpickling.Machine().run(content)
    if type(keys) is not list or any(type(key) is not str for key in keys) or sorted(keys) != sorted(machine.storages):
        raise unpickling.UnreadableError('is damaged: it does not list exactly the storages of its tensors')
    position = content.tell()
    for key in keys:
        storage = machine.storages[key]
        start, stop = position + NUMEL.size, position + NUMEL.size + storage.nbytes
        if content[position:start] != NUMEL.pack(storage.numel) or stop > len(content):
            raise unpickling.UnreadableError(f'is damaged: its storage {key!r:.100} is truncated')
        storage.data = memoryview(content)[start:stop]
        position = stop
    return tree

"""Writes files as `torch.save` does, without PyTorch: the instructions of their pickles by hand."""

import dataclasses
import struct
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

TYPES = {
    **{'bool': 'Bool', 'uint8': 'Byte', 'int8': 'Char', 'int16': 'Short', 'int32': 'Int', 'int64': 'Long'},
    **{'float16': 'Half', 'bfloat16': 'BFloat16', 'float32': 'Float', 'float64': 'Double'},
    **{'complex64': 'ComplexFloat', 'complex128': 'ComplexDouble'},
}
MAGIC = 0x1950A86A20F9469CFC6C
SYS_INFO = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {'short': 2, 'int': 4, 'long': 4}}


def dtype_of(name):
    return np.dtype(ml_dtypes.bfloat16 if name == 'bfloat16' else name)


def assert_same(actual, expected):
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    assert actual.tobytes() == np.ascontiguousarray(expected).tobytes()


Global = dataclasses.make_dataclass('Global', ['module', 'name'], frozen=True)
Call = dataclasses.make_dataclass('Call', ['function', ('arguments', tuple, ()), ('state', Any, None)], frozen=True)
Storage = dataclasses.make_dataclass('Storage', ['type', 'key', 'numel', ('view', Any, None)], frozen=True)
Instructions = dataclasses.make_dataclass('Instructions', ['code'], frozen=True)
ORDERED_DICT = Global('collections', 'OrderedDict')


def view(key, array, shape, strides, offset=0, numel=None):
    """What `torch.save` writes for a tensor that is a view of a storage with the elements of `array`."""
    storage = Storage(f'{TYPES[array.dtype.name]}Storage', key, array.size if numel is None else numel)
    arguments = (storage, offset, shape, strides, False, Call(ORDERED_DICT))
    return Call(Global('torch._utils', '_rebuild_tensor_v2'), arguments)


def tensor(key, array):
    return view(key, array, array.shape, tuple(s // array.itemsize for s in array.strides))


def string(text):
    return b'X' + struct.pack('<I', len(text.encode())) + text.encode()


def code(value, old=False):
    """Instructions that push a value; `old` writes the persistent ids of the format before PyTorch 1.6."""
    match value:
        case Instructions(instructions):
            return instructions
        case None:
            return b'N'
        case bool():
            return b'\x88' if value else b'\x89'
        case int():
            content = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
            return b'\x8a' + bytes([len(content)]) + content
        case float():
            return b'G' + struct.pack('>d', value)
        case str():
            return string(value)
        case tuple():
            return b'(' + b''.join(code(item, old) for item in value) + b't'
        case list():
            return b'](' + b''.join(code(item, old) for item in value) + b'e'
        case dict():
            return b'}(' + b''.join(code(part, old) for item in value.items() for part in item) + b'u'
        case Global(module, name):
            return f'c{module}\n{name}\n'.encode()
        case Call(function, arguments, state):
            build = b'' if state is None else code(state, old) + b'b'
            return code(function, old) + code(arguments, old) + b'R' + build
        case Storage(kind, key, numel, view):
            module = 'torch.storage' if kind.startswith('Untyped') else 'torch'
            return code(('storage', Global(module, kind), key, 'cpu', numel, *([view] if old else [])), old) + b'Q'
    raise TypeError(value)


def pickled(value, old=False):
    return b'\x80\x02' + code(value, old) + b'.'


def write_zip(path, tree, storages, members=None, compression=zipfile.ZIP_STORED):
    """Writes the format since PyTorch 1.6; `members` are added, or replace what would be written (None: leave out)."""
    contents = {'data.pkl': pickled(tree), 'byteorder': b'little'}
    contents |= {f'data/{key}': array.tobytes() for key, array in storages.items()}
    contents |= {'version': b'3\n', **(members or {})}
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, content in contents.items():
            if content is not None:
                archive.writestr(f'archive/{name}', content)


def write_stream(path, tree, storages, magic=MAGIC, protocol=1001, sys_info=SYS_INFO, keys=None):
    """Writes the format before PyTorch 1.6."""
    values = (magic, protocol, sys_info, tree, sorted(storages) if keys is None else keys)
    data = b''.join(struct.pack('<q', storages[key].size) + storages[key].tobytes() for key in sorted(storages))
    path.write_bytes(b''.join(pickled(value, old=True) for value in values) + data)

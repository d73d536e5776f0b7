"""Reads pickles of tensors without running anything of them.

A pickle is a program for a small stack machine, and Python's own machine imports and calls whatever a pickle names. The one
here can do neither. A global is a name and stays one; a name that is not in the tables below is refused, and what a pickle
calls is a function of this module, which checks its arguments and gives a new object. All that is not a tensor, a string, a
number or a plain container becomes an `Inert` and what the pickle says about it is dropped.
"""

import dataclasses
import io
import math
import mmap
import pickletools
import sys
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

DTYPES = {
    f'torch.{name}': np.dtype(getattr(jnp, name))
    for name in (
        *('bool', 'uint8', 'uint16', 'uint32', 'uint64', 'int8', 'int16', 'int32', 'int64'),
        *('float16', 'bfloat16', 'float32', 'float64', 'float8_e4m3fn', 'float8_e5m2', 'complex64', 'complex128'),
    )
}
STORAGES = {
    'torch.BoolStorage': DTYPES['torch.bool'],
    'torch.ByteStorage': DTYPES['torch.uint8'],
    'torch.CharStorage': DTYPES['torch.int8'],
    'torch.ShortStorage': DTYPES['torch.int16'],
    'torch.IntStorage': DTYPES['torch.int32'],
    'torch.LongStorage': DTYPES['torch.int64'],
    'torch.HalfStorage': DTYPES['torch.float16'],
    'torch.BFloat16Storage': DTYPES['torch.bfloat16'],
    'torch.FloatStorage': DTYPES['torch.float32'],
    'torch.DoubleStorage': DTYPES['torch.float64'],
    'torch.ComplexFloatStorage': DTYPES['torch.complex64'],
    'torch.ComplexDoubleStorage': DTYPES['torch.complex128'],
    'torch.storage.UntypedStorage': DTYPES['torch.uint8'],
}
LITERALS = frozenset(
    (
        *('INT', 'BININT', 'BININT1', 'BININT2', 'LONG1', 'LONG4', 'BINFLOAT'),
        *('BINSTRING', 'SHORT_BINSTRING', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'),
        *('BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8'),
    )
)
MOST_AXES = 32
REMEDY = 'if you trust it, load it with PyTorch and save the state dict alone'


class UnreadableError(Exception):
    """The file is damaged, or asks for something that is not done; the message continues `the file ...`."""


@dataclasses.dataclass(eq=False)
class Storage:
    """The numbers that tensors are views of.

    Attributes:
      dtype: Their type.
      numel: How many there are.
      data: Their bytes, filled in by whoever knows where in the file they are.
      byteorder: `'little'` or `'big'`.
    """

    dtype: np.dtype
    numel: int
    data: bytes | memoryview = b''
    byteorder: str = 'little'

    @property
    def nbytes(self) -> int:
        """How many bytes the numbers take."""
        return self.numel * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage that lies inside it and is no larger.

    Attributes:
      storage: The storage.
      dtype: Type of the elements.
      offset: Where the first element is, counted in elements like the strides.
      shape: The shape.
      strides: How far apart neighbors along each axis are.
    """

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self):
        if not (type(self.shape) is type(self.strides) is tuple and len(self.shape) == len(self.strides) <= MOST_AXES):
            raise UnreadableError('is damaged: it holds a tensor whose shape and strides do not fit together')
        if not all(type(n) is int and 0 <= n < 2**48 for n in (self.offset, *self.shape, *self.strides)):
            raise UnreadableError('is damaged: it holds a tensor with an impossible offset, shape or stride')
        if math.prod(n or 1 for n in self.shape) >= 2**48:  # even NumPy's empty arrays have such a limit
            raise UnreadableError(f'is damaged: it holds a tensor of the impossible shape {self.shape}')
        available = self.storage.nbytes // self.dtype.itemsize
        if self.size and (self.size > available or self.offset + self.span > available):
            raise UnreadableError(
                f'holds a tensor of shape {self.shape} that exceeds its storage of {available} numbers'
            )

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes a copy takes."""
        return self.size * self.dtype.itemsize

    @property
    def span(self) -> int:
        """How many elements of the storage there are from its first to its last, if it has any."""
        return 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))

    def array(self) -> np.ndarray:
        """A contiguous copy."""
        if not self.size:
            return np.empty(self.shape, self.dtype)
        itemsize = self.dtype.itemsize
        start, stop = self.offset * itemsize, (self.offset + self.span) * itemsize
        data = np.frombuffer(self.storage.data[start:stop], np.uint8)
        if self.storage.byteorder != sys.byteorder:
            word = itemsize // 2 if self.dtype.kind == 'c' else itemsize
            data = np.ascontiguousarray(data.reshape(-1, word)[:, ::-1])
        view = np.ndarray(self.shape, self.dtype, buffer=data, strides=[itemsize * stride for stride in self.strides])
        if self.dtype == np.bool_:
            return view.view(np.uint8) != 0  # a byte of another value would be neither true nor false
        return np.array(view, order='C')


@dataclasses.dataclass(frozen=True, eq=False)
class Global:
    """The name of a function, a class or a type that a pickle may mention.

    Attributes:
      name: Module and name, with a dot between them.
    """

    name: str


class Inert:
    """Something that is no weight; nothing is known about it."""


NEW: dict[str, Callable[[], Any]] = {
    'NONE': lambda: None,
    'NEWTRUE': lambda: True,
    'NEWFALSE': lambda: False,
    'EMPTY_TUPLE': tuple,
    'EMPTY_LIST': list,
    'EMPTY_DICT': dict,
    'EMPTY_SET': Inert,
}


class Machine:
    """Carries out the instructions of one pickle.

    Attributes:
      storages: The storages that the pickle mentions, by their keys; their data are for the caller to fill in.
      tensors: The different views of them that it makes.
    """

    def __init__(self):
        self.storages: dict[str, Storage] = {}
        self.tensors: set[Tensor] = set()
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO | mmap.mmap) -> Any:
        """The value of the pickle that begins at the position of `stream`, which is at its end afterwards.

        Returns:
          Dictionaries (with the string keys only), lists, tuples, strings, numbers, bytes, None, `Tensor`s, `Global`s and
          `Inert`s.

        Raises:
          UnreadableError: The pickle asks for something that is not done, or is damaged.
          LookupError, TypeError, ValueError: The pickle is damaged.
        """
        for opcode, argument, _ in pickletools.genops(stream):
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, instruction: str, argument: Any) -> None:
        stack = self._stack
        match instruction:
            case 'PROTO' | 'FRAME' | 'STOP':
                pass
            case _ if instruction in LITERALS:
                stack.append(argument)
            case _ if instruction in NEW:
                stack.append(NEW[instruction]())
            case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                items = [stack.pop() for _ in range(int(instruction[-1]))]
                stack.append(tuple(reversed(items)))
            case 'TUPLE':
                items = self._since_mark()
                self._stack.append(tuple(items))
            case 'FROZENSET':
                self._since_mark()
                self._stack.append(Inert())
            case 'MARK':
                self._marked.append(stack)
                self._stack = []
            case 'POP' if stack:
                stack.pop()
            case 'POP' | 'POP_MARK':
                self._since_mark()
            case 'DUP':
                stack.append(stack[-1])
            case 'BINPUT' | 'LONG_BINPUT':
                self._memo[argument] = stack[-1]
            case 'MEMOIZE':
                self._memo[len(self._memo)] = stack[-1]
            case 'BINGET' | 'LONG_BINGET':
                stack.append(self._memo[argument])
            case 'APPEND':
                item = stack.pop()
                self._top(list).append(item)
            case 'APPENDS':
                items = self._since_mark()
                self._top(list).extend(items)
            case 'ADDITEMS':
                self._since_mark()
                self._top(Inert)
            case 'SETITEM':
                value, key = stack.pop(), stack.pop()
                _set(self._top(dict), key, value)
            case 'SETITEMS':
                items = self._since_mark()
                for key, value in zip(items[::2], items[1::2], strict=True):
                    _set(self._top(dict), key, value)
            case 'BUILD':  # the attributes of an object, none of which is kept
                stack.pop()
                self._top(dict, Inert, Tensor)
            case 'GLOBAL':
                stack.append(_named(argument.replace(' ', '.')))
            case 'STACK_GLOBAL':
                name, module = stack.pop(), stack.pop()
                if type(name) is not str or type(module) is not str:
                    raise UnreadableError('is damaged: it has a global without a name')
                stack.append(_named(f'{module}.{name}'))
            case 'REDUCE' | 'NEWOBJ':
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
                if type(stack[-1]) is Tensor:
                    self.tensors.add(stack[-1])
            case 'BINPERSID':
                stack.append(self._storage(stack.pop()))
            case _:
                what = f'{instruction} {argument.replace(" ", ".")!r:.100}' if type(argument) is str else instruction
                raise UnreadableError(
                    f'holds the pickle instruction {what}, which a state dict does not need; {REMEDY}'
                )

    def _since_mark(self) -> list[Any]:
        """Takes what lies on the stack above the last mark."""
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _top(self, *types: type) -> Any:
        """What lies on top of the stack, which must be of one of some types."""
        if type(self._stack[-1]) not in types:
            raise UnreadableError('is damaged: it fills or appends to something that is no container')
        return self._stack[-1]

    def _storage(self, identifier: Any) -> Storage:
        """The storage of a persistent id."""
        match identifier:
            case ('storage', Global(name), str(key), str(), int(numel), *view) if name in STORAGES:
                dtype = STORAGES[name]
            case _:
                raise UnreadableError('is damaged: it has a persistent id of something that is no storage')
        if any(view):
            raise UnreadableError(f'holds a storage that is a view of another one; {REMEDY}')
        if not 0 <= numel < 2**48:
            raise UnreadableError('is damaged: it holds a storage of an impossible size')
        storage = self.storages.setdefault(key, Storage(dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            raise UnreadableError(f'is damaged: its storage {key!r:.40} has two types or sizes')
        return storage


def _set(target: dict[str, Any], key: Any, value: Any) -> None:
    """Sets an item whose key is a string; other keys name no weight, and hashing them may take arbitrarily long."""
    if type(key) is str:
        target[key] = value


def _named(name: str) -> Global:
    if name not in GLOBALS:
        raise UnreadableError(f'asks for {name!r:.100}, which a state dict does not need; {REMEDY}')
    return Global(name)


def _call(function: Any, arguments: Any) -> Any:
    if type(function) is not Global or function.name not in FUNCTIONS or type(arguments) is not tuple:
        raise UnreadableError('is damaged: it calls something that is no function')
    return FUNCTIONS[function.name](*arguments)


def _ordered_dict(pairs: Any = None) -> dict[str, Any]:
    """`OrderedDict()`, or `OrderedDict(pairs)` as Python 2 wrote it."""
    ordered = {}
    if pairs is not None:
        if type(pairs) is not list:
            raise UnreadableError('is damaged: it makes a dictionary of something that is no list')
        for key, value in pairs:
            _set(ordered, key, value)
        pairs.clear()  # so that a pickle cannot have one long list copied over and over
    return ordered


def _inert(*_: Any) -> Inert:
    return Inert()


def _size(axes: Any) -> Any:
    return axes


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *, dtype: np.dtype | None = None) -> Tensor:
    if type(storage) is not Storage:
        raise UnreadableError('is damaged: it holds a tensor without a storage')
    return Tensor(storage, storage.dtype if dtype is None else dtype, offset, shape, strides)


def _tensor_v2(storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, bits: Any = None) -> Tensor:
    del grad, hooks
    _refuse_lazy(bits)
    return _tensor(storage, offset, shape, strides)


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, bits: Any = None
) -> Tensor:
    del grad, hooks
    _refuse_lazy(bits)
    if type(dtype) is not Global:
        raise UnreadableError('is damaged: it holds a tensor without a type')
    return _tensor(storage, offset, shape, strides, dtype=DTYPES[dtype.name])


def _refuse_lazy(bits: Any) -> None:
    if bits:
        raise UnreadableError(f'holds a tensor that is still to be conjugated or negated; {REMEDY}')


def _parameter(tensor: Any, *_: Any) -> Tensor:
    if type(tensor) is not Tensor:
        raise UnreadableError('is damaged: it holds a parameter without a tensor')
    return tensor


def _of_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor that has attributes or is of a subclass."""
    del kind, state
    if type(function) is not Global or function.name not in TENSORS:
        raise UnreadableError('is damaged: it holds a tensor of a wrong kind')
    return _call(function, arguments)


TENSORS: dict[str, Callable[..., Any]] = {
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor_v2,
    'torch._utils._rebuild_tensor_v3': _tensor_v3,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **TENSORS,
    'torch._tensor._rebuild_from_type_v2': _of_type,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
    'torch.nn.parameter.Parameter': _parameter,  # as the versions before 0.4 wrote it
    'torch.Size': _size,
    'collections.OrderedDict': _ordered_dict,
    **dict.fromkeys(
        (
            '__builtin__.set',
            '_codecs.encode',  # what bytes are written as
            'argparse.Namespace',
            'builtins.set',
            'collections.Counter',
            'numpy._core.multiarray.scalar',
            'numpy.core.multiarray.scalar',
            'numpy.dtype',
            'torch.device',
        ),
        _inert,
    ),
}
GLOBALS = frozenset({*FUNCTIONS, *STORAGES, *DTYPES, 'torch.Tensor'})

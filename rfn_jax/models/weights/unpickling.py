"""Reads pickles of tensors without executing anything in them.

A pickle is a program for a small stack machine. Python's own machine imports and calls whatever a pickle names; the machine
in this module can do neither. A global remains a mere name, and a name that is not in the tables below is rejected. The
functions that a pickle calls are functions of this module, which check their arguments and return a new object. Everything
that is not a tensor, a string, a number or a plain container becomes an `Inert`, and what the pickle says about it is
dropped.
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
MAX_AXES = 32
REMEDY = 'if you trust it, load it with PyTorch and save only the state dict'


class UnreadableError(Exception):
    """The file is damaged, or asks for something unsupported; the message completes a sentence that begins `The file ...`."""


@dataclasses.dataclass(eq=False)
class Storage:
    """The numbers of which tensors are views.

    Attributes:
      dtype: Type of the numbers.
      numel: How many numbers there are.
      data: Bytes of the numbers; the caller of the machine fills them in.
      byteorder: `'little'` or `'big'`.
    """

    dtype: np.dtype
    numel: int
    data: bytes | memoryview = b''
    byteorder: str = 'little'

    @property
    def nbytes(self) -> int:
        """Number of bytes of the storage."""
        return self.numel * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view that lies inside a storage and is not larger than the storage.

    Attributes:
      storage: The storage.
      dtype: Type of the elements.
      offset: Position of the first element, in elements.
      shape: The shape.
      strides: Distance between neighbors along each axis, in elements.
    """

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self):
        if not (type(self.shape) is type(self.strides) is tuple and len(self.shape) == len(self.strides) <= MAX_AXES):
            raise UnreadableError('is damaged: it holds a tensor whose shape and strides do not match')
        if not all(type(n) is int and 0 <= n < 2**48 for n in (self.offset, *self.shape, *self.strides)):
            raise UnreadableError('is damaged: it holds a tensor with an impossible offset, shape or stride')
        if math.prod(n or 1 for n in self.shape) >= 2**48:  # NumPy limits this even for empty arrays
            raise UnreadableError(f'is damaged: it holds a tensor with the impossible shape {self.shape}')
        available = self.storage.nbytes // self.dtype.itemsize
        if self.size and (self.size > available or self.offset + self.span > available):
            raise UnreadableError(
                f'holds a tensor of shape {self.shape} that exceeds its storage of {available} numbers'
            )

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes of a copy."""
        return self.size * self.dtype.itemsize

    @property
    def span(self) -> int:
        """Number of elements of the storage from the first to the last element of a nonempty tensor, both included."""
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
            return view.view(np.uint8) != 0  # as a boolean, any byte but 0 and 1 would be neither true nor false
        return np.array(view, order='C')


@dataclasses.dataclass(frozen=True, eq=False)
class Global:
    """The name of a function, a class or a type that a pickle may refer to.

    Attributes:
      name: Module and name, joined by a dot.
    """

    name: str


class Inert:
    """A placeholder for something that is not a weight and of which nothing is kept."""


CONSTRUCTORS: dict[str, Callable[[], Any]] = {
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
      storages: The storages that the pickle refers to, by key; the caller fills in their data.
      tensors: The distinct tensors that the pickle makes.
    """

    def __init__(self):
        self.storages: dict[str, Storage] = {}
        self.tensors: set[Tensor] = set()
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO | mmap.mmap) -> Any:
        """Reads the pickle that begins at the current position of `stream`, and leaves the position at its end.

        Returns:
          The value of the pickle: dictionaries (only their items with string keys), lists, tuples, strings, numbers, bytes,
          None, `Tensor`s, `Global`s and `Inert`s.

        Raises:
          UnreadableError: The pickle asks for something unsupported, or is damaged.
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
            case _ if instruction in CONSTRUCTORS:
                stack.append(CONSTRUCTORS[instruction]())
            case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                items = [stack.pop() for _ in range(int(instruction[-1]))]
                stack.append(tuple(reversed(items)))
            case 'TUPLE':
                items = self._pop_to_mark()
                self._stack.append(tuple(items))
            case 'FROZENSET':
                self._pop_to_mark()
                self._stack.append(Inert())
            case 'MARK':
                self._marked.append(stack)
                self._stack = []
            case 'POP' if stack:
                stack.pop()
            case 'POP' | 'POP_MARK':
                self._pop_to_mark()
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
                self._peek(list).append(item)
            case 'APPENDS':
                items = self._pop_to_mark()
                self._peek(list).extend(items)
            case 'ADDITEMS':
                self._pop_to_mark()
                self._peek(Inert)
            case 'SETITEM':
                value, key = stack.pop(), stack.pop()
                _set_item(self._peek(dict), key, value)
            case 'SETITEMS':
                items = self._pop_to_mark()
                for key, value in zip(items[::2], items[1::2], strict=True):
                    _set_item(self._peek(dict), key, value)
            case 'BUILD':  # sets attributes of an object, none of which are kept
                stack.pop()
                self._peek(dict, Inert, Tensor)
            case 'GLOBAL':
                stack.append(_global(argument.replace(' ', '.')))
            case 'STACK_GLOBAL':
                name, module = stack.pop(), stack.pop()
                if type(name) is not str or type(module) is not str:
                    raise UnreadableError('is damaged: it has a global without a name')
                stack.append(_global(f'{module}.{name}'))
            case 'REDUCE' | 'NEWOBJ':
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
                if type(stack[-1]) is Tensor:
                    self.tensors.add(stack[-1])
            case 'BINPERSID':
                stack.append(self._get_storage(stack.pop()))
            case _:
                shown = f'{instruction} {argument.replace(" ", ".")!r:.100}' if type(argument) is str else instruction
                raise UnreadableError(
                    f'holds the pickle instruction {shown}, which a state dict does not need; {REMEDY}'
                )

    def _pop_to_mark(self) -> list[Any]:
        """Removes the items above the last mark from the stack, and returns them."""
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _peek(self, *types: type) -> Any:
        """The top of the stack, which must have one of the given types."""
        if type(self._stack[-1]) not in types:
            raise UnreadableError('is damaged: it fills or appends to something that is not a container')
        return self._stack[-1]

    def _get_storage(self, identifier: Any) -> Storage:
        """The storage that a persistent id refers to."""
        match identifier:
            case ('storage', Global(name), str(key), str(), int(numel), *view) if name in STORAGES:
                dtype = STORAGES[name]
            case _:
                raise UnreadableError('is damaged: it has a persistent id of something that is not a storage')
        if any(view):
            raise UnreadableError(f'holds a storage that is a view of another one; {REMEDY}')
        if not 0 <= numel < 2**48:
            raise UnreadableError('is damaged: it holds a storage with an impossible size')
        storage = self.storages.setdefault(key, Storage(dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            raise UnreadableError(f'is damaged: its storage {key!r:.40} has two types or sizes')
        return storage


def _set_item(target: dict[str, Any], key: Any, value: Any) -> None:
    """Sets an item if its key is a string; other keys do not name weights, and hashing them may take arbitrarily long."""
    if type(key) is str:
        target[key] = value


def _global(name: str) -> Global:
    if name not in GLOBALS:
        raise UnreadableError(f'asks for {name!r:.100}, which a state dict does not need; {REMEDY}')
    return Global(name)


def _call(function: Any, arguments: Any) -> Any:
    if type(function) is not Global or function.name not in FUNCTIONS or type(arguments) is not tuple:
        raise UnreadableError('is damaged: it calls something that is not a function')
    return FUNCTIONS[function.name](*arguments)


def _ordered_dict(pairs: Any = None) -> dict[str, Any]:
    """`OrderedDict()`, or `OrderedDict(pairs)` as Python 2 wrote it."""
    ordered = {}
    if pairs is not None:
        if type(pairs) is not list:
            raise UnreadableError('is damaged: it makes a dictionary from something that is not a list')
        for key, value in pairs:
            _set_item(ordered, key, value)
        pairs.clear()  # so that a pickle cannot make the machine copy one long list again and again
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
        raise UnreadableError(f'holds a tensor with a pending conjugation or negation; {REMEDY}')


def _parameter(tensor: Any, *_: Any) -> Tensor:
    if type(tensor) is not Tensor:
        raise UnreadableError('is damaged: it holds a parameter without a tensor')
    return tensor


def _tensor_of_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor that has attributes or belongs to a subclass."""
    del kind, state
    if type(function) is not Global or function.name not in TENSOR_FUNCTIONS:
        raise UnreadableError('is damaged: it holds a tensor of the wrong kind')
    return _call(function, arguments)


TENSOR_FUNCTIONS: dict[str, Callable[..., Any]] = {
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor_v2,
    'torch._utils._rebuild_tensor_v3': _tensor_v3,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **TENSOR_FUNCTIONS,
    'torch._tensor._rebuild_from_type_v2': _tensor_of_type,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
    'torch.nn.parameter.Parameter': _parameter,  # written by PyTorch before 0.4
    'torch.Size': _size,
    'collections.OrderedDict': _ordered_dict,
    **dict.fromkeys(
        (
            '__builtin__.set',
            '_codecs.encode',  # represents bytes
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

"""Between the leaves of Flax variables and the tensors of a PyTorch state dict: keys and axes.

Axes: kernels of convolutions are `[h, w, C, D]` here and `[D, C, h, w]` there, those of dense layers `[C, D]` and `[D, C]`.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import numpy as np

from rfn_jax.core import errors
from rfn_jax.models.weights import names

LEAVES = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
PIECE = re.compile(r'(.*)\[(\d+)/(\d+)\]')


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where a leaf lies in a state dict.

    Attributes:
      key: The key of the tensor.
      piece: Which of `pieces` equal pieces along the first axis it is.
      pieces: How many of them there are.
      shape: Shape of the piece.
    """

    key: str
    piece: int
    pieces: int
    shape: tuple[int, ...]

    @property
    def whole(self) -> tuple[int, ...]:
        """Shape of the whole tensor."""
        return (self.shape[0] * self.pieces, *self.shape[1:])


def namings_of(module: nn.Module) -> Mapping[str, names.Rules]:
    """The namings of the family of a module.

    Raises:
      InputError: There is none.
    """
    family = type(module).__name__
    if family not in names.NAMINGS:
        known = ', '.join(names.NAMINGS)
        raise errors.InputError(f'no PyTorch naming is known for models of the family {family}; known: {known}')
    namings = names.NAMINGS[family]
    return namings(module) if callable(namings) else namings


def slots(variables: Mapping[str, Any], rules: names.Rules) -> dict[tuple[str, ...], Slot]:
    """Where each leaf of some variables (arrays or shapes) lies, by its path, which begins with the collection.

    Raises:
      ValueError: The rules give two leaves the same place.
    """
    found = {path: _slot(path, leaf.shape, rules) for path, leaf in flax.traverse_util.flatten_dict(variables).items()}
    places = collections.Counter((slot.key, slot.piece) for slot in found.values())
    if any(count > 1 for count in places.values()):
        (key, _), count = places.most_common(1)[0]
        raise ValueError(f'the rules give {count} leaves the key {key!r}')
    return found


def _slot(path: tuple[str, ...], shape: tuple[int, ...], rules: names.Rules) -> Slot:
    *modules, leaf = path[1:]
    key = '.'.join([*modules, LEAVES.get(leaf, leaf)])
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    match = PIECE.fullmatch(key)
    key, piece, pieces = (match[1], int(match[2]), int(match[3])) if match else (key, 0, 1)
    return Slot(key, piece, pieces, to_tensor(path, np.broadcast_to(np.float32(0), shape)).shape)


def to_tensor(path: tuple[str, ...], leaf: np.ndarray) -> np.ndarray:
    """The tensor (or piece of one) of a leaf."""
    if path[-1] != 'kernel':
        return leaf.ravel() if path[-1] == 'bias' else leaf
    if leaf.ndim == 4:
        return leaf.transpose(3, 2, 0, 1)
    return leaf.reshape(_inputs(path, leaf.shape), -1).T


def to_leaf(path: tuple[str, ...], tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The leaf of a tensor (or piece of one); `shape` is that of the leaf."""
    if path[-1] == 'kernel':
        tensor = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
    return np.ascontiguousarray(tensor.reshape(shape))


def _inputs(path: tuple[str, ...], shape: tuple[int, ...]) -> int:
    """How many inputs a dense kernel has: attention keeps its heads as an axis, the last of `out` being the output."""
    return math.prod(shape[:-1]) if path[-2] == 'out' else shape[0]

"""Maps the leaves of Flax variables to the tensors of a PyTorch state dict: keys and axes.

Axes: kernels of convolutions are `[h, w, C, D]` in Flax and `[D, C, h, w]` in PyTorch; kernels of dense layers are `[C, D]`
and `[D, C]`.
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
    """The place of a leaf in a state dict: a tensor, or one of several equal pieces of a tensor along its first axis.

    Attributes:
      key: The key of the tensor.
      piece: Index of the piece.
      pieces: Number of pieces.
      shape: Shape of the piece.
    """

    key: str
    piece: int
    pieces: int
    shape: tuple[int, ...]

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape of the whole tensor."""
        return (self.shape[0] * self.pieces, *self.shape[1:])


def namings_of(module: nn.Module) -> Mapping[str, names.Rules]:
    """The namings of the family of a module.

    Raises:
      InputError: The family has no naming.
    """
    family = type(module).__name__
    if family not in names.NAMINGS:
        known = ', '.join(names.NAMINGS)
        raise errors.InputError(
            f'no PyTorch naming is known for models of the family {family}; known families: {known}'
        )
    namings = names.NAMINGS[family]
    return namings(module) if callable(namings) else namings


def slots(variables: Mapping[str, Any], rules: names.Rules) -> dict[tuple[str, ...], Slot]:
    """The slot of each leaf of the variables (arrays or shapes), by its path, which begins with the collection.

    Raises:
      ValueError: The rules give two leaves the same slot.
    """
    slots_by_path = {
        path: _slot(path, leaf.shape, rules) for path, leaf in flax.traverse_util.flatten_dict(variables).items()
    }
    counts = collections.Counter((slot.key, slot.piece) for slot in slots_by_path.values())
    if any(count > 1 for count in counts.values()):
        (key, _), count = counts.most_common(1)[0]
        raise ValueError(f'the rules give {count} leaves the key {key!r}')
    return slots_by_path


def _slot(path: tuple[str, ...], shape: tuple[int, ...], rules: names.Rules) -> Slot:
    *modules, leaf = path[1:]
    key = '.'.join([*modules, LEAVES.get(leaf, leaf)])
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    match = PIECE.fullmatch(key)
    key, piece, pieces = (match[1], int(match[2]), int(match[3])) if match else (key, 0, 1)
    return Slot(key, piece, pieces, to_tensor(path, np.broadcast_to(np.float32(0), shape)).shape)


def to_tensor(path: tuple[str, ...], leaf: np.ndarray) -> np.ndarray:
    """Converts a leaf to a tensor, or to a piece of one."""
    if path[-1] != 'kernel':
        return leaf.ravel() if path[-1] == 'bias' else leaf
    if leaf.ndim == 4:
        return leaf.transpose(3, 2, 0, 1)
    return leaf.reshape(_num_inputs(path, leaf.shape), -1).T


def to_leaf(path: tuple[str, ...], tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Converts a tensor, or a piece of one, to a leaf of shape `shape`."""
    if path[-1] == 'kernel':
        tensor = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
    return np.ascontiguousarray(tensor.reshape(shape))


def _num_inputs(path: tuple[str, ...], shape: tuple[int, ...]) -> int:
    """The number of inputs of a dense kernel. In attention, heads are an axis; only the last axis of `out` is the output."""
    return math.prod(shape[:-1]) if path[-2] == 'out' else shape[0]

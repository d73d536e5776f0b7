"""The interface of input transforms: functions of images and keys that may produce several copies.

Each transform of the literature has its own file: `resizing.py`, `shifts.py`, `scales.py`, `mixing.py`, `spectrum.py` and
`blocks.py`.

Axes: `B` examples, `P` images of a pool, `H W` rows and columns, `C` channels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from rfn_jax.core import errors


class Pool(NamedTuple):
    """Images that transforms may mix into the attacked ones, the same for all examples.

    Attributes:
      images: Float `[P, H, W, C]` in [0, 1].
      labels: int32 `[P]`.
    """

    images: jax.Array
    labels: jax.Array


class Input(NamedTuple):
    """The input of a transform.

    Attributes:
      images: `[B, H, W, C]`.
      labels: True classes `[B]`.
      keys: Keys `[B]`, new at every step and for every copy.
      base_keys: Keys `[B]`, new at every step and the same for all copies.
      copy: Number of the copy, int32, less than the transform's `copies`.
      pool: Images to mix in, or None.
    """

    images: jax.Array
    labels: jax.Array
    keys: jax.Array
    base_keys: jax.Array
    copy: jax.Array
    pool: Pool | None


class InputTransform(NamedTuple):
    """A transform that is applied to the images before the surrogate; the gradient is averaged over its copies.

    Attributes:
      name: Name for messages.
      apply: Function from an `Input` to images `[B, H, W, C]`.
      copies: Number of copies; with several transforms, all combinations are computed.
      needs_pool: Whether it needs `Input.pool`.
    """

    name: str
    apply: Callable[[Input], jax.Array]
    copies: int = 1
    needs_pool: bool = False


def as_transform(function: InputTransform | Callable[[jax.Array, jax.Array], jax.Array]) -> InputTransform:
    """Turns a plain function of images and keys into an `InputTransform`; returns an `InputTransform` unchanged.

    Raises:
      InputError: `function` is neither.
    """
    if isinstance(function, InputTransform):
        return function
    if not callable(function):
        raise errors.InputTypeError(f'each of the transforms must be a function or an InputTransform, got {function!r}')
    name = getattr(function, '__name__', 'transform')
    return InputTransform(name, lambda inputs: function(inputs.images, inputs.keys))

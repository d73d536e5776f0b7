"""What an input transform is: a function of images and keys that may make several copies of them.

The transforms of the literature have a file each: `resizing.py`, `shifts.py`, `scales.py`, `mixing.py`, `spectrum.py`,
`blocks.py`.

Axes: `B` examples, `P` images of a pool, `H W` rows and columns, `C` channels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from rfn_jax.core import errors


class Pool(NamedTuple):
    """Images that transforms may mix into those under attack, the same for all examples.

    Attributes:
      images: Float `[P, H, W, C]` in [0, 1].
      labels: int32 `[P]`.
    """

    images: jax.Array
    labels: jax.Array


class Input(NamedTuple):
    """What a transform is applied to.

    Attributes:
      images: `[B, H, W, C]`.
      labels: True classes `[B]`.
      keys: Keys `[B]`, new at every step and for every copy.
      base_keys: Keys `[B]`, new at every step and the same for all copies.
      copy: Number of the copy, int32, below `copies` of the transform.
      pool: Images to mix in, or None.
    """

    images: jax.Array
    labels: jax.Array
    keys: jax.Array
    base_keys: jax.Array
    copy: jax.Array
    pool: Pool | None


class InputTransform(NamedTuple):
    """A transform of the images before the surrogate, over whose copies the gradient is averaged.

    Attributes:
      name: What to call it in messages.
      apply: Function of an `Input` to images `[B, H, W, C]`.
      copies: Number of copies; with several transforms all combinations are made.
      needs_pool: Whether `Input.pool` must be there.
    """

    name: str
    apply: Callable[[Input], jax.Array]
    copies: int = 1
    needs_pool: bool = False


def as_transform(function: InputTransform | Callable[[jax.Array, jax.Array], jax.Array]) -> InputTransform:
    """An `InputTransform`, also of a plain function of images and keys.

    Raises:
      InputError: It is neither.
    """
    if isinstance(function, InputTransform):
        return function
    if not callable(function):
        raise errors.InputTypeError(
            f'transforms must be a tuple of functions or InputTransforms, got {function!r} in it'
        )
    name = getattr(function, '__name__', 'transform')
    return InputTransform(name, lambda given: function(given.images, given.keys))

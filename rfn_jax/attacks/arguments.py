"""Checks of the arguments of an attack, and the error message for a device that runs out of memory.

Values are checked only where they are known, and so not under jit.

Axes: `B` examples, `P` images of a pool, `H W` rows and columns, `C` channels, `K` classes, `M` members of an ensemble.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rfn_jax.attacks.inputs import transforms
from rfn_jax.core import errors


def check_images(images: jax.Array) -> None:
    """Checks that images are floats `[B, H, W, C]` and, if their values are known, that they are in [0, 1] without NaN.

    Raises:
      InputError: A check fails.
    """
    if images.ndim != 4 or images.dtype not in (jnp.float32, jnp.float64, jnp.float16):
        raise errors.InputError(
            f'images must be floats [B, H, W, C] in [0, 1], got {images.dtype} {images.shape}; divide uint8 images by 255'
        )
    if not len(images):
        raise errors.InputError('an attack needs at least one image, got none')
    if not isinstance(images, jax.core.Tracer):
        with jax.ensure_compile_time_eval():  # concrete images may be used inside a function under jit
            smallest, largest = float(jnp.min(images)), float(jnp.max(images))  # NaN if any value is
        if not (smallest >= 0 and largest <= 1):
            raise errors.InputError(
                f'images must be in [0, 1] without NaN, got values from {smallest:g} to {largest:g}; the normalization '
                'belongs inside the model (Classifier)'
            )


def check_labels(labels: jax.Array, count: int, num_classes: int) -> None:
    """Checks that labels are integers `[count]` and, if their values are known, that they are in `[0, num_classes)`.

    Raises:
      InputError: A check fails.
    """
    if labels.shape != (count,) or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise errors.InputError(f'labels must be integers [{count}], got {labels.dtype} {labels.shape}')
    if not isinstance(labels, jax.core.Tracer):
        values = np.asarray(labels)
        invalid = values[(values < 0) | (values >= num_classes)]
        if invalid.size:
            raise errors.InputError(
                f'labels must be in [0, {num_classes}), the classes of the surrogate, got {invalid[0]}'
            )


def split_key(key: jax.Array, count: int) -> jax.Array:
    """Returns the keys `[count]` of the examples, given one key for all of them or one key for each.

    Raises:
      InputError: `key` is neither.
    """
    if not hasattr(key, 'dtype') or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise errors.InputError(f'key must be made by jax.random.key, got {key!r}')
    keys = jax.random.split(key, count) if key.ndim == 0 else key
    if keys.shape != (count,):
        raise errors.InputError(f'key must be one key or one for each of the {count} examples, got {key.shape}')
    return keys


def check_logits(logits: Any, count: int) -> int:
    """Checks that what a surrogate returns has the shape of logits, `[count, K]` or `[M, count, K]`.

    Returns:
      The number of classes K.

    Raises:
      InputError: It has another shape.
    """
    if getattr(logits, 'ndim', 0) not in (2, 3) or logits.shape[-2] != count:
        raise errors.InputError(f'the surrogate must return logits [{count}, K], got {logits}')
    classes: int = logits.shape[-1]
    return classes


def check_pool(name: str, pool: tuple[ArrayLike, ArrayLike] | None, images: jax.Array) -> transforms.Pool:
    """Checks the pool of an attack on images `[B, H, W, C]`: images `[P, H, W, C]` and labels `[P]`.

    Returns:
      The pool, as arrays.

    Raises:
      InputError: The pool is missing, or has the wrong types or shapes.
    """
    if pool is None:
        raise errors.InputError(f'attack {name!r} mixes in other images: it needs pool=(images, labels)')
    try:
        pool = transforms.Pool(*(jnp.asarray(part) for part in pool))
    except TypeError as error:
        raise errors.InputError(f'pool must be (images, labels), got {type(pool).__name__}') from error
    check_images(pool.images)
    if not jnp.issubdtype(pool.labels.dtype, jnp.integer):
        raise errors.InputError(f'labels of the pool must be integers, got {pool.labels.dtype}')
    if pool.images.shape[1:] != images.shape[1:] or pool.labels.shape != pool.images.shape[:1]:
        raise errors.InputError(
            f'the pool must have images {list(images.shape[1:])} with one label each, got images '
            f'{list(pool.images.shape)} and labels {list(pool.labels.shape)}'
        )
    return pool


@contextlib.contextmanager
def memory_advice(name: str, count: int, chunk_size: int) -> Iterator[None]:
    """Turns the error of a device that runs out of memory into one line that says what to change.

    Args:
      name: Name of the attack.
      count: Number of images.
      chunk_size: The attack's `chunk_size`.

    Raises:
      RunError: The device ran out of memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        alternative = f', or a chunk_size below {chunk_size}' if chunk_size > 1 else ''
        raise errors.RunError(
            f'attack {name!r} ran out of device memory with {count} images and chunk_size {chunk_size}: use a smaller batch '
            f'size{alternative}'
        ) from error

"""Ranges of the options of models and of the sizes of their images, with one message for each."""

import math
from collections.abc import Sequence

import jax

from rfn_jax.core import errors


def check_positive(**options: float) -> None:
    """Checks strides, widths and multipliers, by their names.

    Raises:
      InputError: One is not positive and finite.
    """
    for name, value in options.items():
        if not 0 < value < math.inf:
            raise errors.InputError(f'{name} must be above 0, got {value!r}')


def check_rates(**options: float) -> None:
    """Checks probabilities of leaving something out, by their names.

    Raises:
      InputError: One is not in [0, 1).
    """
    for name, value in options.items():
        if not 0 <= value < 1:
            raise errors.InputError(f'{name} must be in [0, 1), got {value!r}')


def check_weights(**options: float) -> None:
    """Checks weights of terms of the loss, by their names.

    Raises:
      InputError: One is negative or not finite.
    """
    for name, value in options.items():
        if not 0 <= value < math.inf:
            raise errors.InputError(f'{name} must be at least 0, got {value!r}')


def check_odd(**options: int) -> None:
    """Checks rows and columns of kernels that have a middle, by their names.

    Raises:
      InputError: One is even or not positive.
    """
    for name, value in options.items():
        if value < 1 or value % 2 == 0:
            raise errors.InputError(f'{name} must be an odd number of at least 1, got {value!r}')


def check_stages(**options: Sequence[int]) -> None:
    """Checks numbers that each stage of a network has, by their names.

    Raises:
      InputError: There are no stages, more of one number than of another, or a number is below 1.
    """
    counts = {len(values) for values in options.values()}
    if len(counts) > 1 or 0 in counts:
        got = ' and '.join(f'{name} {tuple(values)}' for name, values in options.items())
        raise errors.InputError(f'{got} need the same number of stages, at least one')
    for name, values in options.items():
        if min(values) < 1:
            raise errors.InputError(f'{name} must be at least 1 in every stage, got {tuple(values)}')


def check_image(x: jax.Array, least: int, network: str) -> None:
    """Checks that images `[B, H, W, C]` are large enough for a network, which is named as in `'VGG'`.

    Raises:
      InputError: They have fewer than `least` rows or columns.
    """
    height, width = x.shape[1:3]
    if min(height, width) < least:
        raise errors.InputError(
            f'an image of {height} x {width} pixels is too small for this {network}, which needs at least {least} rows and '
            'columns'
        )

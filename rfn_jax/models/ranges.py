"""Ranges of the options of models, with one message for each."""

import math

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

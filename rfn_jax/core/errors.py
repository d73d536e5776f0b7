"""The errors that the command line turns into one clear line: wrong input (exit 2) and a failed run (exit 1)."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The caller's input is wrong; the message names the value and what is allowed. Exit status 2."""


class InputTypeError(InputError, TypeError):
    """The caller's input is of the wrong type: both an `InputError` and a TypeError. Exit status 2."""


class RunError(RuntimeError):
    """The input was right and the work failed (diverged, disk full, damaged file). Exit status 1."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """An InputError for a name that is not in a table, with the nearest names.

    Args:
      kind: What the name stands for, such as `'model'`.
      name: The name that was given.
      known: The names that exist.

    Returns:
      The error, to be raised by the caller.
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    if not known:
        return InputError(f'unknown {kind} {str(name)!r}; there are none')
    hint = f'did you mean {" or ".join(map(repr, near))}?' if near else f'known: {", ".join(known)}'
    return InputError(f'unknown {kind} {str(name)!r}; {hint}')

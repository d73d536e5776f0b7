"""The errors that the command line reports in one clear line: wrong input (exit 2), a failed run (1) and a stop (75)."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The caller's input is wrong; the message states the value and what is allowed. Exit status 2."""


class InputTypeError(InputError, TypeError):
    """The caller's input is of the wrong type: both an `InputError` and a TypeError. Exit status 2."""


class RunError(RuntimeError):
    """The input was correct but the work failed (divergence, full disk, damaged file). Exit status 1."""


class PreemptedError(RunError):
    """The run was asked to stop, and the same command continues it. Exit status 75."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Returns an `InputError` for a name that is not in a table; the message suggests the nearest names.

    Args:
      kind: What the name stands for, such as `'model'`.
      name: The name that was given.
      known: The names that exist.

    Returns:
      The error, for the caller to raise.
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    if not known:
        return InputError(f'unknown {kind} {str(name)!r}; there are none')
    hint = f'did you mean {" or ".join(map(repr, near))}?' if near else f'known: {", ".join(known)}'
    return InputError(f'unknown {kind} {str(name)!r}; {hint}')

"""Lists of classes in text files: one class a line, in the order of the labels."""

import pathlib

from rfn_jax.core import errors


def read(path: str) -> dict[str, str]:
    """Reads the classes of a file such as `wnids.txt`.

    Each line has the name of a class as folders use it and, optionally, a longer name after a space or a tab. Empty lines are
    skipped.

    Args:
      path: The file.

    Returns:
      For each class, in order, the name to show: the longer name if there is one.

    Raises:
      InputError: The file cannot be read, has fewer than 2 classes, or lists one twice.
    """
    try:
        lines = pathlib.Path(path).expanduser().read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InputError(f'could not read the list of classes {path}: {error}') from error
    names: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *longer = line.split(maxsplit=1)
        if name in names:
            raise errors.InputError(f'{path} lists {name!r} twice (line {number})')
        names[name] = longer[0].strip() if longer else name
    if len(names) < 2:
        raise errors.InputError(f'the list of classes {path} has {len(names)} classes; at least 2 are needed')
    return names

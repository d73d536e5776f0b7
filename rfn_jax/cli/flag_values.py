"""Flags of a command without a config, with one-line errors."""

import re
from collections.abc import Sequence

from absl import flags

from rfn_jax.core import errors


def parse(
    values: flags.FlagValues,
    command: str,
    summary: str,
    arguments: Sequence[str],
    *,
    needed: Sequence[str] = (),
    examples: str = '',
) -> None:
    """Parses the flags of a command into `values`.

    Args:
      values: The flags that the command defines.
      command: Name of the command.
      summary: One line about what it does, for `--help`.
      arguments: Its arguments; in the names of flags, `-` is taken for `_`.
      needed: Names of the required flags.
      examples: Lines to show before the flags, for `--help`.

    Raises:
      InputError: A flag is wrong or missing.
      SystemExit: With status 0, after `--help`.
    """
    if any(argument.lstrip('-') in ('help', 'h') for argument in arguments):
        print(f'rfn-jax {command} [flags]: {summary}\n{examples}{values.get_help()}')
        raise SystemExit(0)
    arguments = [re.sub(r'^--[a-z-]+', lambda match: '--' + match[0][2:].replace('-', '_'), a) for a in arguments]
    try:
        rest = values([f'rfn-jax {command}', *arguments])[1:]
    except flags.Error as error:
        raise errors.InputError(' '.join(str(error).split())) from error
    if rest:
        raise errors.InputError(f'unexpected argument {rest[0]!r}; see rfn-jax {command} --help')
    for name in needed:
        if not values[name].value:
            raise errors.InputError(f'rfn-jax {command} needs --{name}')

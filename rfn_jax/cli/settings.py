"""Flags and config of a command, read by absl and ml_collections, with one-line errors."""

import json
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from rfn_jax.core import cluster, errors

PROCESS_FLAGS = (
    (flags.DEFINE_string, 'coordinator', '', 'HOST:PORT of process 0, for several processes that no cluster starts.'),
    (flags.DEFINE_integer, 'processes', None, 'Number of processes, with --coordinator.'),
    (flags.DEFINE_integer, 'process', None, 'Which process this is, from 0, with --coordinator.'),
)


def parse(
    command: str, summary: str, arguments: Sequence[str], *, config_file: str | None = None, workdir: str | None = None
) -> tuple[dict, str, list[str]]:
    """Parses the flags of a command that works on an experiment, and joins the other processes if there are several.

    Args:
      command: Name of the command.
      summary: One line about what it does, for `--help`.
      arguments: Its arguments.
      config_file: The config to use without `--config`; if None, the one that the work directory was last used with.
      workdir: The directory to use without `--workdir`; if None, the flag is required.

    Returns:
      The config as nested plain values, the work directory, and the folders of networks that `train` is limited to.

    Raises:
      InputError: A flag, a config key or a value is wrong.
      RunError: The other processes were not found.
      SystemExit: With status 0, after `--help`.
    """
    values = flags.FlagValues()
    arguments = [f'rfn-jax {command}', *arguments]
    config_flags.DEFINE_config_file(
        'config',
        config_file,
        'Python file with get_config(); --config.KEY=VALUE overrides a value, such as --config.optim.rho=0.2. '
        'By default, the last config of the work directory.',
        flag_values=values,
        sys_argv=arguments,
    )
    flags.DEFINE_string(
        'workdir', workdir, 'Directory of the experiment; created if it is missing.', flag_values=values
    )
    for define, name, default, text in PROCESS_FLAGS:
        define(name, default, text, flag_values=values)
    if command == 'train':
        help_text = 'Train only the networks in these folders, such as targets,surrogates/resnet-rfn.'
        flags.DEFINE_list('only', None, help_text, flag_values=values)
    if any(argument.lstrip('-') in ('help', 'h') for argument in arguments[1:]):
        print(f'rfn-jax {command} [flags]: {summary}\n{values.get_help()}')
        raise SystemExit(0)
    given = [argument for argument in arguments if argument.lstrip('-').split('=')[0] == 'config']
    if config_file is None and not given and any(a.lstrip('-').startswith('config.') for a in arguments):
        raise errors.InputError('overrides such as --config.KEY=VALUE need --config=FILE before them')
    try:
        rest = values(arguments)[1:]
        if values.config is not None and not isinstance(values.config, ml_collections.ConfigDict):
            getattr(values.config, 'name', None)  # raises why the file could not be loaded, if that is so
            raise TypeError(f'get_config of {given[0]} must return a ConfigDict, got {values.config!r}')
        config = None if values.config is None else values.config.to_dict()
    except errors.InputError:
        raise
    except Exception as error:  # absl and ml_collections raise many types, and a config file may raise any
        raise errors.InputError(_one_line(error)) from error
    if rest:
        raise errors.InputError(f'unexpected argument {rest[0]!r}; see rfn-jax {command} --help')
    if not values.workdir:
        raise errors.InputError(f'rfn-jax {command} needs --workdir=DIRECTORY')
    if config is None and given:
        raise errors.InputError(f'get_config of {given[0]} must return a ConfigDict, got None')
    cluster.join(values.coordinator, values.processes, values.process)
    if cluster.is_joined():
        from rfn_jax.core import digests, processes

        given_values = json.dumps([config, values.workdir], default=str)
        processes.check_same('the config and the work directory', digests.of_plain(given_values))
    from rfn_jax import experiment  # imported late, so that --help does not wait for it

    if config is None and not experiment.is_workdir(values.workdir):
        raise errors.InputError(
            f'{values.workdir} is not a work directory yet: rfn-jax {command} needs --config=FILE, such as '
            '--config=configs/digits.py'
        )
    only = [] if command != 'train' or values.only is None else [name for name in values.only if name]
    if command == 'train' and values.only is not None and not only:
        raise errors.InputError('--only needs at least one folder of networks, such as targets')
    return experiment.last_config(values.workdir) if config is None else config, values.workdir, only


def _one_line(error: Exception) -> str:
    """An error of absl or ml_collections on one line."""
    text = ' '.join(str(error).split())
    if 'parsing config file' in text:  # followed by the traceback of whatever the file raised
        lines = [line.strip() for line in str(error).strip().splitlines()]
        where = [line for line in lines if line.startswith('File ')][-1]
        return f'the config fails: {lines[-1]} ({where})'
    if isinstance(error, (AttributeError, KeyError)):  # an override of a key that does not exist
        return f'unknown config key {" ".join(str(error.args[0]).split())}'
    if isinstance(error, OSError):
        return f'cannot load the config: {text.rsplit("[Errno", 1)[-1].split("]", 1)[-1].strip()}'
    return text

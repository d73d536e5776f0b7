"""`rfn-jax COMMAND [flags]`: from flags to calls of the library, and from errors to one line and an exit status."""

import importlib.resources
import logging
import os
import sys
import traceback
from collections.abc import Sequence

from rfn_jax.cli import bench, listing, prepare, settings, weights
from rfn_jax.core import cluster, errors
from rfn_jax.core import console as console_lib
from rfn_jax.core.version import __version__

# For each command, its one-line summary and the stages that it runs, in order; None for all stages.
STAGES = {
    'quickstart': ('compares RFN with early stopping and SGD on digits: no files, no network, minutes on a CPU.', None),
    'run': ('trains, crafts, measures and reports; skips what is already done.', None),
    'train': ('trains the targets and the surrogates.', ('train',)),
    'select': ('chooses the early-stopping epochs on validation data.', ('select',)),
    'craft': ('chooses the early-stopping epochs, and crafts the adversarial sets.', ('select', 'craft')),
    'measure': ('measures the adversarial sets on the targets and writes the result tables.', ('measure',)),
    'landscape': ('measures sharpness and curvature around the surrogates, and writes landscape.csv.', ('landscape',)),
    'report': ('prints the tables and writes report/index.html from the result tables.', ('report',)),
}
ALL_STAGES = ('train', 'select', 'craft', 'measure', 'landscape', 'report')
LOST = ('Gloo', 'coordination', 'Connection', 'Socket closed')  # in errors of JAX when another process ends
OTHERS = {
    'bench': (bench.SUMMARY, bench.main),
    'prepare': (prepare.SUMMARY, prepare.main),
    'import-weights': (weights.IMPORT_SUMMARY, weights.import_weights),
    'export-weights': (weights.EXPORT_SUMMARY, weights.export_weights),
    'list': (listing.SUMMARY, listing.main),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      arguments: The arguments; by default those of the command line.

    Returns:
      The exit status: 0, 1 (it failed), 2 (the input is wrong) or 75 (SIGTERM came; the same command continues the work).
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Libraries log what they raise (Orbax at length, from its threads); here an error is a single line.
    logging.getLogger('absl').setLevel(logging.CRITICAL)
    try:
        return _dispatch(arguments)
    except errors.InputError as error:
        return _fail(2, str(error))
    except errors.PreemptedError as error:
        print(f'rfn-jax: {error}', file=sys.stderr)
        cluster.leave()
        return 75
    except errors.RunError as error:
        return _fail(1, str(error))
    except BrokenPipeError:  # as in `rfn-jax list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        continues = arguments[:1] and arguments[0] in (*STAGES, 'prepare')
        hint = '; run the same command again to continue' if continues else ''
        print(f'rfn-jax: interrupted{hint}', file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)  # immediately: threads of XLA and Orbax that are still running would crash a normal exit
    except Exception as error:
        if not cluster.is_joined():
            raise
        if not any(sign in str(error) for sign in LOST):
            traceback.print_exc()
            return _fail(1, f'{type(error).__name__} in this process ends all of them')
        return _fail(1, f'another process failed or was stopped: {" ".join(str(error).split())[:200]}')


def _fail(status: int, message: str) -> int:
    """Prints one line; one of several processes ends at once, as the others may be waiting for it."""
    print(f'rfn-jax: {message}', file=sys.stderr)
    if cluster.is_joined():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ('-h', '--help', 'help'):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] in ('-V', '--version'):
        print(f'rfn-jax {__version__}')
        return 0
    command, rest = arguments[0], arguments[1:]
    if command in OTHERS:
        return OTHERS[command][1](rest)
    if command not in STAGES:
        raise errors.unknown_name('command', command, [*STAGES, *OTHERS])
    summary, stages = STAGES[command]
    defaults = {}
    if command == 'quickstart':
        config_file = importlib.resources.files('rfn_jax.configs') / 'digits.py'
        defaults = {'config_file': str(config_file), 'workdir': 'rfn_quickstart'}
    config, directory, only = settings.parse(command, summary, rest, **defaults)
    _run(config, directory, stages or ALL_STAGES, only)
    return 0


def _run(config: dict, directory: str, stages: Sequence[str], only: Sequence[str]) -> None:
    from rfn_jax import experiment  # imported late, so that --help does not wait for them
    from rfn_jax.core import preemption, processes, watchdog

    console = console_lib.Console(quiet=not processes.is_first())
    experiment_stages = [stage for stage in stages if stage != 'report']
    if experiment_stages:
        with preemption.watched(), watchdog.watched(_warn):
            plan, workdir = experiment.open_workdir(config, directory, console)
            if plan.landscape is None and stages == ALL_STAGES:
                experiment_stages.remove('landscape')
            for stage in experiment_stages:
                getattr(experiment, stage)(plan, workdir, **({'only': only} if only else {}))
    elif experiment.is_workdir(directory):
        experiment.check_last_config(directory, config)
    if 'report' in stages:
        processes.on_first(_report)(directory, console)
    cluster.leave()


def _warn(message: str) -> None:
    print(f'rfn-jax: {message}', file=sys.stderr, flush=True)


def _report(directory: str, console: console_lib.Console) -> None:
    from rfn_jax import report

    report.print_tables(directory, console)
    console.info(f'report: {report.write_page(directory)}')


def _usage() -> str:
    lines = [f'  {name:<15} {summary}' for name, (summary, _) in {**STAGES, **OTHERS}.items()]
    return '\n'.join(['usage: rfn-jax COMMAND [flags]', '', *lines, '', 'rfn-jax COMMAND --help shows the flags.'])


if __name__ == '__main__':
    sys.exit(main())

"""Several processes on one machine: what each is started with, which status remains, restarts, signals."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

# Process I of attempt A does what the line `A I` of `plan` says: a status at once, `lateN`, or `wait` for TERM, then 75.
PROGRAM = r"""#!/bin/bash
me=${!#} me=${me#--process=}
echo "$me $* $XLA_FLAGS" >>started.$me
echo "output of $me"
does=$(sed -n "s/^$(wc -l <started.$me) $me //p" plan)
if [[ $does == late* ]]; then
  until [[ -e ready.1 || $((me * 1000 + tries++)) -gt 1030 ]]; do /bin/sleep 0.01; done # for process 1, after 30 tries
  does=${does#late}
fi
trap 'echo TERM >>signals.$me; exit 75' TERM
trap 'echo INT >>signals.$me; exit 130' INT
[[ $does == wait ]] || exit "${does:-0}"
: >ready.$me
for i in {1..200}; do /bin/sleep 0.05; done
"""


@pytest.fixture
def plan(commands):
    def plan(*attempts):
        commands.write('rfn-jax', PROGRAM)
        lines = (f'{a} {i} {does}\n' for a, does in enumerate(attempts, 1) for i, does in enumerate(does))
        (commands.folder / 'plan').write_text(''.join(lines))

    return plan


def read(commands, name):
    return (commands.folder / name).read_text()


def test_each_process_knows_its_place_and_has_its_log(commands, plan):
    plan([0, 0, 0])
    flags = ('--processes=3', '--devices=2', '--port=5000', '--logs=logs')
    result = commands.run('local_processes.sh', *flags, '--', 'run', '--workdir=a b', XLA_FLAGS='--xla_x')
    assert (result.returncode, result.stdout) == (0, 'output of 0\n')
    assert 'logs/process_N.log, N = 1 to 2' in result.stderr
    assert [read(commands, f'logs/process_{i}.log') for i in (1, 2)] == ['output of 1\n', 'output of 2\n']
    for i in range(3):
        place = f'--coordinator=127.0.0.1:5000 --processes=3 --process={i}'
        xla = '--xla_x --xla_force_host_platform_device_count=2'
        assert read(commands, f'started.{i}') == f'{i} run --workdir=a b {place} {xla}\n'


@pytest.mark.parametrize(
    ('attempts', 'restarts', 'status'),
    [
        ([['wait', 1]], 0, 1),  # the others are stopped
        ([[2, 'wait']], 3, 2),  # never started again
        ([[75, 75]], 0, 75),
        ([[75, 'late1']], 0, 1),
        ([[75, 75], [0, 0]], 1, 0),
        ([['wait', 1], [75, 75], [0, 0]], 2, 0),
        ([[1, 1], [75, 75]], 1, 75),
    ],
)
def test_status_and_restarts(commands, plan, attempts, restarts, status):
    plan(*attempts)
    result = commands.run('local_processes.sh', f'--restarts={restarts}', '--logs=logs', '--', 'run')
    assert result.returncode == status, result.stderr
    assert [len(read(commands, f'started.{i}').splitlines()) for i in (0, 1)] == [len(attempts)] * 2


def test_those_that_hang_after_a_preemption_are_stopped(commands, plan):
    plan(['late75', 'wait'])
    assert commands.run('local_processes.sh', '--grace=0', '--logs=logs', '--', 'run').returncode == 75
    assert read(commands, 'signals.1') == 'TERM\n'


@pytest.mark.parametrize(('sent', 'status'), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_are_passed_on_and_end_the_restarts(commands, plan, sent, status):
    plan(['wait', 'wait'])
    process = commands.start('local_processes.sh', '--restarts=5', '--logs=logs', '--', 'run')
    commands.interrupt(process, sent, *(commands.folder / f'ready.{i}' for i in (0, 1)))
    assert process.returncode == status
    assert {read(commands, f'signals.{i}') for i in (0, 1)} == {f'{sent.name.removeprefix("SIG")}\n'}


def test_a_free_port_is_found_and_a_dry_run_starts_nothing(commands, plan):
    plan()
    lines = commands.run('local_processes.sh', '--dry-run', '--', 'run').stdout.splitlines()
    ports = {int(line.split('127.0.0.1:')[1].split()[0]) for line in lines}
    assert len(lines) == 2
    assert len(ports) == 1
    assert 20000 <= ports.pop() < 32000
    assert not list(commands.folder.glob('started.*'))


@pytest.mark.slow
def test_two_real_processes_train_craft_and_measure(tmp_path):
    root, folder = pathlib.Path(__file__).parents[2], tmp_path / 'run'
    environment = {**os.environ, 'PATH': f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}', 'XLA_FLAGS': ''}
    arguments = ['run', f'--config={root / "tests/small_experiment.py"}', f'--workdir={folder}']
    command = ['launch/local_processes.sh', '--processes=2', f'--logs={tmp_path / "logs"}', '--', *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'report:' in done.stdout
    assert (folder / 'results' / 'transfer.csv').exists()
    assert (folder / 'report' / 'index.html').exists()
    assert not list(folder.rglob('*.lock'))

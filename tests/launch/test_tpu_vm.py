"""Cloud TPU VMs: what gcloud is asked. What the workers are told is run for real, each in its own home."""

import signal

import pytest

TPU = ('--name=rfn', '--zone=z', '--type=v6e-16', '--spot', '--wheel=rfn_jax.whl', '--poll=1')
RUN = ('--', 'run', '--config=a b.py')
PLACE = ['--zone=z', '--quiet']
ABSENT, ACTIVE, SUSPENDED = ['describe', 1, 'NOT_FOUND'], ['describe', 0, 'ACTIVE'], ['describe', 0, 'SUSPENDED']

UV = r"""#!/bin/sh
echo "$@" >>~/uv
mkdir -p venv/bin
echo '#!/bin/sh
echo ~/package/configs' >venv/bin/python
chmod +x venv/bin/python
"""
# The real one may take a second to notice the end.
TAIL = '#!/bin/sh\nuntil [ -f ~/rfn_jax/status ]; do /bin/sleep 0.03; done\ncat ~/rfn_jax/log\n'
# Ends with the next status of its worker, or waits for TERM.
PROGRAM = r"""#!/bin/bash
echo "output of ${HOME##*/}: $* $DATA"
does=$(sed -n 1p ~/statuses); sed -i 1d ~/statuses
trap 'echo saved; exit 75' TERM
[[ $does == wait ]] || exit "$does"
: >~/ready
for i in {1..200}; do /bin/sleep 0.05; done
"""


@pytest.fixture
def workers(commands):
    """A function that makes workers with the statuses that their runs will end with."""

    def workers(*statuses):
        commands.write('rfn-jax', PROGRAM)
        commands.write('tail', TAIL)
        commands.write('rfn_jax.whl', '')
        for i, lines in enumerate(statuses):
            commands.write(f'workers/{i}/.local/bin/uv', UV)
            commands.write(f'workers/{i}/statuses', ''.join(f'{line}\n' for line in lines))
            (commands.folder / f'workers/{i}/rfn_jax').mkdir()
        return [commands.folder / f'workers/{i}' for i in range(len(statuses))]

    return workers


def short(commands):
    """The subcommands of gcloud, with `start` for the ssh that starts the run, and without the other ssh."""
    names = [call[5] if 'ssh' in call[:5] else call[4] for call in commands.calls()]
    starts = ['start' if 'nohup' in call[-1] else name for call, name in zip(commands.calls(), names, strict=True)]
    return [name for name in starts if name in ('create', 'delete', 'scp', 'start')]


def test_a_run_from_the_request_to_the_deletion(commands, workers):
    homes = workers([0], [0])
    (commands.folder / 'tail').unlink()
    commands.answer([ABSENT, ['create', 0, ''], ['describe', 0, 'PROVISIONING'], ACTIVE])
    result = commands.run('tpu_vm.sh', *TPU, '--env=DATA=b c', '--setup=pwd >mounted', *RUN)
    assert result.returncode == 0, result.stderr
    assert 'output of 0: run --config=a b.py b c\n' in result.stdout
    assert 'output of 1' not in result.stdout
    calls = [call for call in commands.calls() if 'ssh' not in call and 'describe' not in call]
    queued = ['gcloud', 'compute', 'tpus', 'queued-resources']
    what = ['--node-id=rfn', '--accelerator-type=v6e-16', '--runtime-version=v2-alpha-tpuv6e', '--spot']
    assert calls == [
        [*queued, 'create', 'rfn', *PLACE, *what],
        ['gcloud', 'compute', 'tpus', 'tpu-vm', 'scp', 'rfn_jax.whl', 'rfn:rfn_jax/', *PLACE, '--worker=all'],
        [*queued, 'delete', 'rfn', *PLACE, '--force'],
    ]
    for home in homes:
        assert (home / 'rfn_jax/log').read_text() == f'output of {home.name}: run --config=a b.py b c\n'
        assert f'rfn_jax[tpu,gcs] @ file://{home}/rfn_jax/rfn_jax.whl\n' in (home / 'uv').read_text()
        assert (home / 'rfn_jax/mounted').read_text() == f'{home}/rfn_jax\n'
        assert (home / 'rfn_jax/configs').readlink() == home / 'package/configs'


ONCE = ['create', 'scp', 'start', 'delete']
AGAIN = ['create', 'scp', 'start', 'start', 'delete']
ANEW = ['create', 'scp', 'start', 'delete', 'create', 'scp', 'start', 'delete']


@pytest.mark.parametrize(
    ('statuses', 'states', 'status', 'steps'),
    [
        (([2], [1]), [], 2, ONCE),
        (([1], [75]), [ACTIVE], 1, ONCE),
        (([75, 0], [75, 0]), [ACTIVE, ACTIVE], 0, AGAIN),
        (([75, 0], [75, 0]), [SUSPENDED, SUSPENDED, ACTIVE], 0, ANEW),
        (([1, 2], [75, 0]), [['describe', 0, 'SUSPENDING'], SUSPENDED, ACTIVE], 2, ANEW),
    ],
)
def test_preemptions_are_restarted_and_failures_are_not(commands, workers, statuses, states, status, steps):
    workers(*statuses)
    commands.answer([ABSENT, ['create', 0, ''], ACTIVE, *states])
    result = commands.run('tpu_vm.sh', *TPU, *RUN)
    assert result.returncode == status, result.stderr
    assert short(commands) == steps


def test_a_worker_that_waits_for_one_that_failed_is_killed(commands, workers):
    _, waiting = workers([1], ['wait'])
    commands.answer([ACTIVE, ACTIVE])
    assert commands.run('tpu_vm.sh', *TPU, *RUN).returncode == 1
    assert short(commands) == ['scp', 'start', 'delete']
    assert 'kill -KILL' in commands.calls()[-3][-1]
    assert not (waiting / 'rfn_jax/status').exists()


@pytest.mark.parametrize(
    ('answers', 'flags', 'steps'),
    [
        ([['describe', 1, 'PERMISSION_DENIED']], (), []),
        ([ABSENT, ['create', 1, 'no quota']], (), ['create']),  # nothing is there to delete
        ([['describe', 0, 'FAILED'], ['delete', 0, ''], ['create', 1, 'no quota']], (), ['delete', 'create']),
        ([ACTIVE, ['mkdir', 255, ''], ACTIVE], (), ['delete']),
        ([ACTIVE, ['venv/bin/python', 1, 'no network'], ACTIVE], ('--keep',), ['scp']),
        ([ACTIVE, ['nohup', 255, '']], ('--restarts=0',), ['scp', 'start', 'delete']),
    ],
)
def test_what_was_made_is_deleted_after_a_failure_of_gcloud_unless_it_is_kept(commands, workers, answers, flags, steps):
    workers([0])
    commands.answer(answers)
    result = commands.run('tpu_vm.sh', *TPU, *flags, *RUN)
    assert result.returncode == 1
    assert short(commands) == steps
    assert ('charged for until it is deleted: gcloud' in result.stderr) == ('--keep' in flags)


@pytest.mark.parametrize(('sent', 'status'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_saves_first_and_its_slice_is_deleted(commands, workers, sent, status):
    homes = workers(['wait'], ['wait'])
    commands.answer([ACTIVE])
    process = commands.start('tpu_vm.sh', *TPU, *RUN)
    commands.interrupt(process, sent, *(home / 'ready' for home in homes))
    assert process.returncode == status
    assert short(commands) == ['scp', 'start', 'delete']
    for home in homes:
        assert (home / 'rfn_jax/log').read_text().endswith('saved\n')
        assert (home / 'rfn_jax/status').read_text() == '75\n'

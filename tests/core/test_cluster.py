import socket

import pytest
import several_processes

from rfn_jax.core import cluster, errors

TOGETHER = 'go together: give all three, or none'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('a:1', None, None), TOGETHER),
        (('', 2, None), TOGETHER),
        (('', 2, 0), TOGETHER),
        (('a:1', 0, 0), 'processes must be an integer of at least 1, got 0'),
        (('a:1', 2, 2), 'process must be an integer from 0 to 1, got 2'),
        (('a', 2, 0), "coordinator must be HOST:PORT, got 'a'"),
        ((':80', 2, 0), "coordinator must be HOST:PORT, got ':80'"),
        (('a:port', 2, 0), "coordinator must be HOST:PORT, got 'a:port'"),
        (('a:\u00b2', 2, 0), "coordinator must be HOST:PORT, got 'a:\u00b2'"),
        (('a:70000', 2, 0), "coordinator must be HOST:PORT, got 'a:70000'"),
    ],
)
def test_wrong_flags(arguments, message):
    with pytest.raises(errors.InputError, match=message):
        cluster.join(*arguments)
    assert not cluster.is_joined()


@pytest.mark.parametrize(
    ('variables', 'several'),
    [
        ({}, False),
        ({'SLURM_NTASKS': '4', 'SLURM_PROCID': '1'}, True),
        ({'SLURM_NTASKS': '1', 'SLURM_PROCID': '0'}, False),
        ({'SLURM_NTASKS': '4'}, False),  # inside sbatch, but not started by srun
        ({'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_RANK': '0'}, True),
        ({'JAX_COORDINATOR_ADDRESS': 'a:1'}, True),
    ],
)
def test_a_launcher_is_recognized(variables, several, monkeypatch):
    joined = []
    monkeypatch.setattr('jax.distributed.initialize', lambda *args, **kwargs: joined.append(args))
    monkeypatch.setattr('jax.config.update', lambda *args: None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    cluster.join()
    assert joined == [(None, None, None)] * several


def test_the_flags_reach_jax_unless_there_is_one_process(monkeypatch):
    joined = []
    monkeypatch.setattr('jax.distributed.initialize', lambda *args, **kwargs: joined.append(args))
    monkeypatch.setattr('jax.config.update', lambda *args: None)
    with socket.socket() as process_0:
        process_0.bind(('127.0.0.1', 0))
        process_0.listen()
        address = f'127.0.0.1:{process_0.getsockname()[1]}'
        cluster.join(address, 1, 0)
        cluster.join(address, 3, 2)
        assert joined == [(address, 3, 2)]
        with pytest.raises(
            errors.InputError, match=r'port \d+ of --coordinator cannot be used: Address already in use'
        ):
            cluster.join(address, 3, 0)


def test_missing_processes_are_one_clear_line(monkeypatch):
    monkeypatch.setattr(cluster, 'TIMEOUT_S', 0)
    address = several_processes.free_address()
    with pytest.raises(
        errors.RunError, match=f'process 1 of 2 did not find process 0 at {address} within 0 s: .*refused'
    ):
        cluster.join(address, 2, 1)
    monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', address)

    def fail(*args, **kwargs):
        raise ValueError('Number of processes\n must be defined.')

    monkeypatch.setattr('jax.distributed.initialize', fail)
    monkeypatch.setattr('jax.config.update', lambda *args: None)
    with pytest.raises(errors.RunError, match=r'of this cluster were not found .*: Number of processes must'):
        cluster.join()

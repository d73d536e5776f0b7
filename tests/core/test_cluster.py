import pytest

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
    cluster.join('a:1', 1, 0)
    cluster.join('a:1', 3, 2)
    assert joined == [('a:1', 3, 2)]


def test_missing_processes_are_one_clear_line(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError('DEADLINE_EXCEEDED: Barrier\n timed out')

    monkeypatch.setattr('jax.distributed.initialize', fail)
    monkeypatch.setattr('jax.config.update', lambda *args: None)
    message = r'process 1 of 2 did not find the others through a:1 within 300 s: DEADLINE_EXCEEDED: Barrier timed out'
    with pytest.raises(errors.RunError, match=message):
        cluster.join('a:1', 2, 1)

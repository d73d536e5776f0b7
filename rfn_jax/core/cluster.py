"""How the processes of a run find each other: by flags, or as the cluster says that started them."""

import glob
import importlib.util
import os
import socket
import sys
import time

from rfn_jax.core import checks, errors

TIMEOUT_S = 300  # how long a process waits for the others
# For each kind of launcher, the variable with the number of processes, and one that only started processes have.
LAUNCHERS = (('SLURM_NTASKS', 'SLURM_PROCID'), ('OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK'))
TPU_DEVICES = ('/dev/accel*', '/dev/vfio/[0-9]*')


def join(coordinator: str = '', count: int | None = None, index: int | None = None) -> None:
    """Joins the other processes of the run, before any device is used; does nothing if there are no others.

    Without arguments, the processes are those that srun or mpirun started, those of JAX_COORDINATOR_ADDRESS, or the hosts of
    a TPU slice.

    Args:
      coordinator: `host:port` of process 0, the same in all processes.
      count: Number of processes.
      index: Which of them this is, from 0.

    Raises:
      InputError: Only some of the arguments are given, or one is wrong.
      RunError: The other processes were not found.
    """
    given = [coordinator or None, count, index]
    if any(value is not None for value in given):
        if None in given:
            raise errors.InputError(
                '--coordinator=HOST:PORT, --processes=N and --process=I go together: give all three, or none'
            )
        checks.integer('processes', count, at_least=1)
        checks.integer('process', index, at_least=0, at_most=count - 1)
        host, _, port = coordinator.rpartition(':')
        is_number = port.isascii() and port.isdecimal()
        if not host or not is_number or not 0 < int(port) < 1 << 16:
            raise errors.InputError(f'coordinator must be HOST:PORT, got {coordinator!r}')
        if count == 1:
            return
        if index == 0:
            _check_free(int(port))
        else:
            _wait_for(host.strip('[]'), int(port), index, count)
    elif not _were_started_together():
        return
    import jax

    jax.config.update('jax_enable_preemption_service', True)
    try:
        jax.distributed.initialize(coordinator or None, count, index, initialization_timeout=TIMEOUT_S)
    except (RuntimeError, ValueError) as error:  # also of the clusters that JAX knows
        where = (
            f'process {index} of {count} did not find the others through {coordinator}'
            if coordinator
            else ('the other processes of this cluster were not found')
        )
        raise errors.RunError(f'{where} within {TIMEOUT_S} s: {" ".join(str(error).split())[:200]}') from error


def _check_free(port: int) -> None:
    """Checks that process 0 can listen on its port; JAX would crash."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(('', port))
        except OSError as error:
            raise errors.InputError(f'port {port} of --coordinator cannot be used: {error.strerror}') from error


def _wait_for(host: str, port: int, index: int, count: int) -> None:
    """Waits until process 0 listens; JAX would abort where it does not."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
        except OSError as error:
            if time.monotonic() >= end:
                raise errors.RunError(
                    f'process {index} of {count} did not find process 0 at {host}:{port} within {TIMEOUT_S} s: {error}'
                ) from error
            time.sleep(0.2)
        else:
            return


def is_joined() -> bool:
    """Returns whether this is one of several processes."""
    return 'jax' in sys.modules and sys.modules['jax'].distributed.is_initialized()


def leave() -> None:
    """Waits until all processes are done, so that none takes the end of another for a failure."""
    if is_joined():
        sys.modules['jax'].distributed.shutdown()


def _were_started_together() -> bool:
    """Whether a launcher started several processes, or this is a host with TPUs, which may be one of several."""
    if os.environ.get('JAX_COORDINATOR_ADDRESS'):
        return True
    for size, started in LAUNCHERS:
        if started in os.environ and os.environ.get(size, '').isdigit() and int(os.environ[size]) > 1:
            return True
    has_tpus = any(map(glob.glob, TPU_DEVICES)) and importlib.util.find_spec('libtpu') is not None
    return has_tpus and os.environ.get('JAX_PLATFORMS', 'tpu').split(',')[0] == 'tpu'

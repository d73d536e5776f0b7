"""Eight virtual CPU devices, set before anything imports jax; compiled programs are let go after each file.

Most of the time goes into compiling programs that run for milliseconds, so LLVM's optimizations are off; what is tested of
programs (collectives, memory, aliases) is decided before.
"""

import fcntl
import os
import shutil

import pytest

os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0'
)


@pytest.fixture(scope='module', autouse=True)
def let_go_of_compiled_programs():
    """Thousands of them in one process use up the memory maps that the kernel allows it, and the compiler then crashes."""
    yield
    import jax

    jax.clear_caches()


@pytest.fixture(scope='session', autouse=True)
def small_arrays_are_sharded_too():
    """As the networks of tests have no other arrays."""
    from rfn_jax.core import sharding

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, 'SMALLEST_SHARDED', 1)
        yield


@pytest.fixture(scope='session')
def finished(tmp_path_factory, worker_id):
    """The work directory of `small_experiment` after all stages: for reading only, since all processes share it."""
    import small_experiment

    root = tmp_path_factory.getbasetemp() if worker_id == 'master' else tmp_path_factory.getbasetemp().parent
    with (root / 'finished.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / 'finished').exists():
            small_experiment.run(small_experiment.get_config(), root / 'unfinished')
            (root / 'unfinished').rename(root / 'finished')
    return root / 'finished'


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of it, which a test may change."""
    return shutil.copytree(finished, tmp_path / 'copy')

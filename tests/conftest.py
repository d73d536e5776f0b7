"""Eight virtual CPU devices, set before anything imports jax; compiled programs are let go after each file.

Most of the time goes into compiling programs that run for milliseconds, so LLVM's optimizations are off; what is tested of
programs (collectives, memory, aliases) is decided before.
"""

import os

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

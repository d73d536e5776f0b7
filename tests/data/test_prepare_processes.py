import os

import pytest

from rfn_jax.core.errors import RunError
from rfn_jax.data.prepare import processes


def test_one_worker_is_this_process():
    assert list(processes.results(lambda task: (task, os.getpid()), [1, 2], 1)) == [(n, os.getpid()) for n in (1, 2)]


@pytest.mark.slow
def test_a_worker_that_dies_is_reported():
    with pytest.raises(RunError, match='a worker process died, perhaps for lack of memory; the same command continues'):
        list(processes.results(os._exit, [1, 1], 2))

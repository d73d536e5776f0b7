import os
import signal

import pytest

from rfn_jax.core import errors, preemption


def test_a_signal_is_noticed_inside_and_only_there():
    before = signal.getsignal(signal.SIGTERM)
    with preemption.watched():
        preemption.check()
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.is_requested()
        with pytest.raises(errors.PreemptedError, match='stopped by SIGTERM; run the same command again to continue'):
            preemption.check()
    assert signal.getsignal(signal.SIGTERM) is before
    with preemption.watched():
        assert not preemption.is_requested()

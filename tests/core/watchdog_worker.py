"""One process of `test_watchdog.py`: process 1 stops working after two units, the others after five."""

import sys
import time

from rfn_jax.core import cluster

flags = dict(argument.lstrip('-').split('=') for argument in sys.argv[1:])
cluster.join(flags['coordinator'], int(flags['processes']), int(flags['process']))

from rfn_jax.core import preemption, watchdog  # noqa: E402

messages = []
with watchdog.watched(messages.append, every_s=0.1, quiet_s=1):
    for _ in range(2 if flags['process'] == '1' else 5):
        preemption.is_requested()
    time.sleep(4)
print(messages, flush=True)
cluster.leave()

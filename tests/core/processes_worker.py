"""One process of `test_processes.py`; prints what it gets from the others."""

import sys

from rfn_jax.core import cluster

flags = dict(argument.lstrip('-').split('=') for argument in sys.argv[1:])
cluster.join(flags['coordinator'], int(flags['processes']), int(flags['process']))

import jax  # noqa: E402
import numpy as np  # noqa: E402

from rfn_jax.core import errors, processes, sharding  # noqa: E402

index = jax.process_index()


def show(name, *values):
    print(name, *values, flush=True)


def fail(kind):
    raise kind(f'raised by {index}')


show('first', processes.on_first(lambda: [index, processes.are_several(), processes.on_first(lambda: 1.5)()])())
for kind in (errors.InputError, errors.RunError):
    try:
        processes.on_first(fail)(kind)
    except kind as error:
        show(kind.__name__, error)
mine = {
    'a': np.array([-0.0, np.nan, index], np.float32),
    'b': np.arange(2**40, 2**40 + 3),
    'c': (np.bool_(index == 0),),
}
found = processes.arrays_from_first(lambda: mine, mine)
show('arrays', found['a'].tobytes().hex(), found['b'].tolist(), found['b'].dtype, bool(found['c'][0]))
for units in (0, 1, 5):
    share = processes.share_of(units)
    gathered = processes.gather(np.stack([share * 10, share * 10 + 1], axis=1).astype(np.int64), units)
    show('gather', gathered.shape, gathered.tolist())
try:
    processes.check_same('the data', f'digest{index}')
    show('same')
except errors.InputError as error:
    show('same', error)
mesh = sharding.data_mesh()
state = sharding.place({'w': np.arange(12.0, dtype=np.float32)}, sharding.batch_sharding(mesh))
local = sharding.to_local(state, mesh)['w']
show('local', np.asarray(local).tolist(), len(local.sharding.device_set), sharding.local_mesh(mesh).size)
cluster.leave()

"""What several processes tell each other; experiments of several processes are in tests/cli."""

import pathlib

import numpy as np
import pytest
import several_processes

from rfn_jax.core import errors, processes

WORKER = str(pathlib.Path(__file__).parent / 'processes_worker.py')


def test_all_processes_know_what_the_first_one_does():
    outcomes = several_processes.finish(several_processes.start([WORKER], 3, devices=2))
    assert [status for status, _, _ in outcomes] == [0, 0, 0], outcomes
    lines = [[line for line in out.splitlines() if not line.startswith('[Gloo]')] for _, out, _ in outcomes]
    (first, *others), last = zip(*(own[:-2] for own in lines), strict=True), [own[-2:] for own in lines]
    for same in (first, *others):
        assert len(set(same)) == 1
    zero = np.array([-0.0, np.nan, 0], np.float32).tobytes().hex()
    assert lines[0][:4] == [
        'first [0, False, 1.5]',
        'InputError raised by 0',
        'RunError raised by 0',
        f'arrays {zero} {[2**40, 2**40 + 1, 2**40 + 2]} int64 True',
    ]
    assert lines[0][4:7] == [
        'gather (0, 2) []',
        'gather (1, 2) [[0, 1]]',
        f'gather (5, 2) {[[10 * n, 10 * n + 1] for n in range(5)]}',
    ]
    assert [same for same, _ in last] == [
        'same',
        'same the data of process 1 differ from those of process 0',
        'same the data of process 2 differ from those of process 0',
    ]
    whole = [float(n) for n in range(12)]
    assert {local for _, local in last} == {f'local {whole} 2 2'}


def test_one_process_only_calls():
    assert processes.on_first(lambda: (1, 2))() == (1, 2)
    read = {'a': object()}
    assert processes.arrays_from_first(lambda: read, None) is read
    with pytest.raises(errors.RunError, match='own'):
        processes.on_first(lambda: exec('raise E("own")', {'E': errors.RunError}))()
    assert processes.share_of(3).tolist() == [0, 1, 2]
    mine = np.arange(3)
    assert processes.gather(mine, 3) is mine
    processes.check_same('x', 'y')

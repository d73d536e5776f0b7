"""Several real processes, with several devices each, train as one process with one device does."""

import os
import pathlib

import pytest
import several_processes

WORKER = str(pathlib.Path(__file__).parent / 'worker.py')


def results(work, count, devices):
    """The lines of four words that each of `count` processes prints."""
    outcomes = several_processes.finish(several_processes.start([WORKER, work], count, devices=devices))
    assert [status for status, _, _ in outcomes] == [0] * count, outcomes[0][2][-2000:]
    return [[line.split() for line in out.splitlines() if len(line.split()) == 4] for _, out, _ in outcomes]


@pytest.fixture(scope='module')
def one():
    return results('steps', 1, 1)[0]


@pytest.mark.slow
@pytest.mark.parametrize(('processes', 'devices'), [(1, 8), (2, 4), (4, 2)])
def test_twenty_steps_give_the_weights_of_one_device(one, processes, devices):
    first, *others = results('steps', processes, devices)
    assert all(rows == first for rows in others)
    modes = ('None-0', 'None-1', 'None-2', '4-0', '16-0')
    assert [row[:2] for row in first] == [[mode, '8'] for mode in modes]
    for row, expected in zip(first, one, strict=True):
        assert [float(x) for x in row[2:]] == pytest.approx([float(x) for x in expected[2:]], rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif('TFDS_DATA_DIR' not in os.environ, reason='TFDS_DATA_DIR is not set')
@pytest.mark.parametrize(('processes', 'devices'), [(1, 1), (2, 2)])
def test_both_loaders_give_the_same_weights_after_an_epoch_of_cifar10(processes, devices):
    found = results('loaders', processes, devices)
    assert all(rows == found[0] for rows in found)
    resident, streaming = found[0]
    assert (resident[0], streaming[0]) == ('ResidentLoader', 'StreamingLoader')
    assert resident[1:] == streaming[1:]
    assert int(resident[1]) == processes * devices

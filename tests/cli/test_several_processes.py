"""The command line in several real processes."""

import pathlib
import shutil
import signal
import time

import pytest
import several_processes

CONFIG = pathlib.Path(__file__).parents[1] / 'small_experiment.py'
MEASURED = ('transfer.csv', 'natural.csv', 'summary.csv', 'gains.csv', 'examples.csv', 'examples.npz', 'measured.json')


def start(directory, processes, devices=1, command='run'):
    arguments = ['-m', 'rfn_jax', command, f'--config={CONFIG}', f'--workdir={directory}']
    return several_processes.start(arguments, processes, devices=devices)


def contents(directory):
    """The tables and the adversarial sets, byte for byte."""
    files = [*directory.glob('results/**/*'), *directory.glob('adversarial/**/*')]
    return {path.relative_to(directory): path.read_bytes() for path in files if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(('processes', 'devices'), [(1, 8), (2, 4), (4, 2)])
def test_sets_and_tables_are_those_of_one_device(finished, tmp_path, processes, devices):
    directory = tmp_path / 'run'
    shutil.copytree(finished, directory)
    expected = contents(directory)
    shutil.rmtree(directory / 'adversarial')
    for name in (*MEASURED, 'test_examples.json'):
        (directory / 'results' / name).unlink()
    outcomes = several_processes.finish(start(directory, processes, devices))
    assert [status for status, _, _ in outcomes] == [0] * processes, outcomes
    assert contents(directory) == expected
    assert 'report:' in outcomes[0][1]
    assert all('report' not in out and not error for _, out, error in outcomes[1:])


@pytest.mark.slow
def test_sigterm_to_one_process_stops_both_and_the_same_command_continues(tmp_path):
    directory, whole = tmp_path / 'run', tmp_path / 'whole'
    assert [status for status, _, _ in several_processes.finish(start(whole, 2))] == [0, 0]
    started = start(directory, 2)
    path = directory / 'targets' / 'mlp' / 'metrics.jsonl'
    while not path.exists() and started[0].poll() is None:
        time.sleep(0.02)
    started[1].send_signal(signal.SIGTERM)
    outcomes = several_processes.finish(started)
    assert [status for status, _, _ in outcomes] == [75, 75], outcomes
    assert 'run the same command again to continue' in outcomes[0][2]
    assert [status for status, _, _ in several_processes.finish(start(directory, 2))] == [0, 0]
    assert contents(directory) == contents(whole)


@pytest.mark.slow
def test_an_error_of_the_first_process_ends_the_others(finished, tmp_path):
    directory = tmp_path / 'run'
    shutil.copytree(finished, directory)
    (directory / 'layout.json').write_text('{"version": 1}')
    outcomes = several_processes.finish(start(directory, 2))
    assert [status for status, _, _ in outcomes] == [2, 2]
    assert 'is a work directory of layout 1' in outcomes[0][2]

import json
import sys
import time

import pytest
from device import twin

WORKER = """
import json, os, sys, time

name, log = sys.argv[1:]
step, case = 0, {}


def note(*words):
    with open(log, 'a') as file:
        print(name, *words, file=file)


note('begins')
for line in sys.stdin:
    request = json.loads(line)
    command, case = request['command'], request.get('case', case)
    note(command, case.get('model', '-'))
    trouble = case.get(name) if command == case.get('at', 'prepare') else None
    if trouble == 'error':
        answer = {'error': 'no memory'}
    elif trouble == 'death':
        os._exit(3)
    elif trouble == 'silence':
        time.sleep(60)
    elif command == 'about':
        answer = {'name': name}
    elif command == 'prepare':
        step, answer = 0, {'ready': True, 'prepare_s': 2.0, 'peak_memory_bytes': None}
    elif command == 'round':
        step += 1
        answer = {'seconds_per_step': {'torch': [0.2, 0.3, 0.8], 'jax': [0.1, 0.3, 0.2]}[name][step - 1], 'steps': 1}
    else:
        answer = {'dropped': True}
    print(json.dumps(answer), flush=True)
"""


def case(model, work='sgd', **trouble):
    return {**twin.case_of('training', model, 8, 'float32', work), **trouble}


@pytest.fixture
def run(tmp_path):
    """A function that calls `twin.run` on cases with fake workers; `out` is the file, and `log()` returns their commands."""
    script, log = tmp_path / 'worker.py', tmp_path / 'log'
    script.write_text(WORKER)
    workers = {name: [sys.executable, str(script), name, str(log)] for name in ('torch', 'jax')}

    def run(*cases, limit=60.0):
        return twin.run(cases, workers, run.out, rounds=3, seconds=0.01, limit=limit, argv=['twin'])

    run.out = tmp_path / 'twin.json'
    run.log = lambda: log.read_text().splitlines()
    return run


def timed(found):
    """The names of the workers that were timed, for each case."""
    return [
        [name for name in ('torch', 'jax') if 'seconds_per_step' in entry.get(name, {})] for entry in found['cases']
    ]


def test_the_order_is_reversed_in_every_second_round_and_ratios_compare_times_of_the_same_round(run):
    found = run(case('m'))
    log = [line for line in run.log() if 'begins' not in line and 'about' not in line]
    assert log[:2] == ['torch prepare m', 'jax prepare m']
    assert [line.split()[0] for line in log[2:-2]] == ['torch', 'jax', 'jax', 'torch', 'torch', 'jax']
    assert sorted(log[-2:]) == ['jax drop m', 'torch drop m']
    entry = found['cases'][0]
    assert entry['ratio'] == pytest.approx({'median': 2.0, 'min': 1.0, 'max': 4.0})
    assert entry['torch'] == {
        'seconds_per_step': {'median': 0.3, 'min': 0.2, 'max': 0.8, 'rounds': [0.2, 0.3, 0.8]},
        'images_per_s': pytest.approx(8 / 0.3),
        'prepare_s': 2.0,
        'peak_memory_bytes': None,
    }
    assert entry['jax']['images_per_s'] == pytest.approx(8 / 0.2)
    assert entry['case'] == case('m')
    assert json.loads(run.out.read_text()) == found
    assert found['about'] == {'torch': {'name': 'torch'}, 'jax': {'name': 'jax'}}
    assert (found['command'], found['left_out']) == (['twin'], [])


def test_the_file_is_written_after_each_case(run, monkeypatch):
    written = []
    save = twin.save

    def spy(path, value):
        save(path, value)
        written.append(json.loads(path.read_text()))

    monkeypatch.setattr(twin, 'save', spy)
    run(case('a'), case('b'))
    assert [(len(value['cases']), len(value['left_out'])) for value in written] == [(1, 1), (2, 0), (2, 0)]


@pytest.mark.parametrize('at', ['prepare', 'round'])
@pytest.mark.parametrize(
    ('trouble', 'error', 'starts'), [('error', 'no memory', 1), ('death', 'the worker ended with status 3', 2)]
)
def test_an_error_or_a_death_is_recorded_and_the_rest_runs(run, at, trouble, error, starts):
    found = run(case('a', jax=trouble, at=at), case('b'))
    assert found['cases'][0]['jax'] == {'error': error}
    assert 'ratio' not in found['cases'][0]
    assert timed(found) == [['torch'], ['torch', 'jax']]
    assert run.log().count('jax begins') == starts


def test_a_worker_that_cannot_free_a_case_is_replaced(run):
    found = run(case('a', jax='error', at='drop'), case('b'))
    assert timed(found) == [['torch', 'jax'], ['torch', 'jax']]
    assert run.log().count('jax begins') == 2


@pytest.mark.slow
def test_the_time_limit_leaves_whole_results(run):
    began = time.monotonic()
    cases = case('a'), case('b', torch='silence'), case('c')
    found = run(*cases, limit=3.0)
    assert time.monotonic() - began < 20
    assert json.loads(run.out.read_text()) == found
    assert timed(found) == [['torch', 'jax']]
    assert found['left_out'] == list(cases[1:])
    assert twin.table(found).splitlines()[-1] == 'left out at the time limit: b sgd; c sgd'


def test_a_case_that_does_not_fit_into_the_time_limit_is_not_started(run):
    found = run(case('a'), limit=0.05)
    assert (found['cases'], found['left_out']) == ([], [case('a')])


def test_the_table_fits_and_shows_what_sam_costs(run):
    found = run(case('m'), case('m', 'rfn_sam'), case('n', 'rfn_sam', torch='error'))
    found['cases'].append({**found['cases'][0], 'case': twin.CASES[5]})
    lines = twin.table(found).splitlines()
    assert max(map(len, lines)) <= 120
    assert ' '.join(lines[1].split()) == 'm sgd 8 float32 300.00 (27) 200.00 (40) 2.00 (1.00..4.00)'
    assert lines[2].endswith('1.00 / 1.00')
    assert ' '.join(lines[3].split()) == 'n rfn_sam 8 float32 - 200.00 (40) - - / -'
    assert lines[-1] == 'n rfn_sam, torch: no memory'

import json
import os
import subprocess
import sys
import time

import pytest

from rfn_jax import bench
from rfn_jax.cli import main

QUICK = ('--models=cifar_resnet20:8', '--attacks=', '--rounds=2', '--seconds=0.01')


@pytest.mark.slow
def test_a_run_on_this_machine_and_a_comparison_with_itself(tmp_path, capsys, refused):
    out = tmp_path / 'here.json'
    assert main.main(['bench', *QUICK, '--minimizers=sgd', f'--out={out}']) == 0
    environment, (row,) = bench.read(out)
    assert environment['devices'] == '8 x cpu'
    found = (row.model, row.work, row.batch_size, row.steps_per_call, len(row.seconds))
    assert found == ('cifar_resnet20', 'sgd', 8, 1, 2)
    assert json.loads(out.read_text())['command'].startswith('rfn-jax bench --models=cifar_resnet20:8')
    assert 'the same file' in refused('bench', *QUICK, f'--out={out}', f'--compare={out}')
    again = ['bench', *QUICK, '--minimizers=sgd', f'--out={tmp_path / "again.json"}', f'--compare={out}']
    assert main.main(again) == 0
    printed = capsys.readouterr().out
    assert 'training of cifar_resnet20, batch 8, float32' in printed
    assert f'compared with {out}: 8 x cpu' in printed


@pytest.mark.slow
def test_a_killed_run_leaves_what_was_finished(tmp_path):
    out = tmp_path / 'killed.json'
    arguments = ['bench', '--models=cifar_resnet20:8,cifar_wide_resnet28_10:8', *QUICK[1:], '--minimizers=sgd']
    command = [sys.executable, '-m', 'rfn_jax', *arguments, f'--out={out}']
    with subprocess.Popen(command, env={**os.environ, 'JAX_PLATFORMS': 'cpu'}, stdout=subprocess.DEVNULL) as process:
        while not (out.exists() and bench.read(out)[1]) and process.poll() is None:
            time.sleep(0.1)
        process.kill()
    assert [row.model for row in bench.read(out)[1]] == ['cifar_resnet20']
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--models=resnet50'], "--models must be a list of NAME:BATCH separated by commas, got 'resnet50'"),
        (['--models=resnet50:x'], "got 'resnet50:x'"),
        (['--models=resnet51:8'], "unknown model for a benchmark 'resnet51'; did you mean"),
        (['--models=resnet50:3'], 'the batch size 3 of resnet50 does not divide evenly over 8 devices'),
        (['--precisions=float64'], "unknown precision 'float64'"),
        (['--minimizers=adam'], "unknown minimizer for a benchmark 'adam'"),
        (['--rounds=0'], 'rounds must be an integer from 1 to 1048576, got 0'),
        (['--models=cifar_resnet20:8,cifar_resnet20:16'], "names 'cifar_resnet20' twice"),
        (['--models=cifar_resnet20:' + '9' * 5000], 'must be a list of NAME:BATCH'),
        (['--limit=nan'], 'limit must be a finite number above 0, got nan'),
        (['--out='], '--out must be the name of a file'),
        (['--compare=nowhere.json'], 'could not read nowhere.json'),
        (['--models=', '--out=x.json'], 'nothing to time'),
        (['--rounds=two'], 'flag --rounds=two'),
        (['more'], "unexpected argument 'more'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, message, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused('bench', *arguments)
    assert not list(tmp_path.iterdir())


def test_a_result_that_cannot_be_written_is_reported_before_anything_is_timed(refused, tmp_path):
    (tmp_path / 'file').write_text('')
    assert 'could not write' in refused('bench', *QUICK, f'--out={tmp_path / "file" / "x.json"}', status=1)

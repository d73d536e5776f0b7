import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import small_experiment

from rfn_jax import experiment, storage, transfer
from rfn_jax.core import console, errors, io
from rfn_jax.experiment import inputs as inputs_lib

TABLES = (
    'transfer.csv', 'natural.csv', 'summary.csv', 'gains.csv', 'examples.csv', 'early_stopping.csv',
    'transfer_validation.csv', 'natural_validation.csv',
)  # fmt: skip


def opening(config, directory):
    return experiment.open_workdir(config, directory, console.Console())


def run(config, directory):
    opened = opening(config, directory)
    for stage in (experiment.train, experiment.select, experiment.craft, experiment.measure):
        stage(*opened)


def rows(directory, name):
    with (pathlib.Path(directory) / 'results' / name).open(newline='') as file:
        return list(csv.DictReader(file))


def contents(directory):
    return {name: (pathlib.Path(directory) / 'results' / name).read_bytes() for name in TABLES}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp('finished')
    run(small_experiment.get_config().to_dict(), directory)
    return directory


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / 'copy')
    return tmp_path / 'copy'


def test_tables_have_the_columns_that_readers_rely_on(finished):
    header = (finished / 'results' / 'transfer.csv').read_text().splitlines()[0]
    assert header == (
        'surrogate,training,seed,epoch,attack,eps,norm,target,kind,success_rate,ci_low,ci_high,n,gradient_evaluations'
    )
    header = (finished / 'results' / 'natural.csv').read_text().splitlines()[0]
    assert header == 'model,role,training,seed,epoch,accuracy,top5_accuracy,n'


def test_every_training_seed_attack_and_target_has_a_row(finished):
    found = {(r['training'], r['seed'], r['attack'], r['target'], r['kind']) for r in rows(finished, 'transfer.csv')}
    expected = {
        (training, seed, attack, *target)
        for training in ('sgd', 'early_stopped', 'rfn')
        for seed in '01'
        for attack in ('bim', 'mi')
        for target in (('mlp', 'black-box'), ('vgg', 'black-box'), ('resnet', 'white-box'))
    }
    assert found == expected


def test_the_summary_is_the_mean_over_black_box_rows(finished):
    transfer_rows = rows(finished, 'transfer.csv')
    for row in rows(finished, 'summary.csv'):
        same = [r for r in transfer_rows if (r['training'], r['attack']) == (row['training'], row['attack'])]
        black = [float(r['success_rate']) for r in same if r['kind'] == 'black-box']
        white = [float(r['success_rate']) for r in same if r['kind'] == 'white-box']
        assert len(black) == 4
        assert float(row['success_rate']) == pytest.approx(np.mean(black), abs=2e-6)
        assert float(row['white_box_rate']) == pytest.approx(np.mean(white), abs=2e-6)
        assert float(row['ci_low']) <= float(row['success_rate']) <= float(row['ci_high'])


def test_the_early_stopping_epoch_is_the_best_one_on_validation_targets(finished):
    by_epoch = {}
    for row in rows(finished, 'transfer_validation.csv'):
        assert row['target'] in ('mlp_deep', 'resnet')
        if row['training'] == 'sgd' and row['kind'] == 'black-box':
            by_epoch.setdefault(int(row['epoch']), []).append(float(row['success_rate']))
    assert sorted(by_epoch) == [2, 4]  # every second one, and 4 is also the first one after the decay at 3
    best = max(by_epoch, key=lambda epoch: (np.mean(by_epoch[epoch]), -epoch))
    (chosen,) = rows(finished, 'early_stopping.csv')
    assert int(chosen['epoch']) == best
    used = {r['epoch'] for r in rows(finished, 'transfer.csv') if r['training'] == 'early_stopped'}
    assert used == {str(best)}


def test_adversarial_sets_are_inside_their_budgets_on_images_that_all_targets_classify_correctly(finished):
    config = small_experiment.get_config().to_dict()
    inputs = inputs_lib.Inputs(*opening(config, finished))
    by_id = {int(i): image for i, image in zip(inputs.test.ids, inputs.test.images, strict=True)}
    natural = transfer.predictions(inputs.targets, inputs.test, **inputs.batching)
    right = np.all([predicted == inputs.test.labels for predicted in natural.values()], axis=0)
    for training in ('sgd', 'early_stopped', 'rfn'):
        for attack, size in (('bim', lambda d: np.abs(d).max()), ('mi', lambda d: np.sqrt(np.sum(d**2)))):
            made = storage.load_adversarial_set(finished / 'adversarial' / f'resnet-{training}-seed0' / attack)
            assert set(made.ids) <= set(inputs.test.ids[right])
            for identity, image in zip(made.ids, made.images, strict=True):
                change = (image.astype(float) - by_id[int(identity)]) / 255
                assert 0 < size(change) <= config['attacks'][attack]['eps'] + 1e-6


def test_a_second_run_does_nothing(copy):
    def times():
        return {p: p.stat().st_mtime_ns for p in copy.rglob('*') if p.is_file()}

    before = times()
    run(small_experiment.get_config().to_dict(), copy)
    changed = {p.name for p, t in times().items() if before.get(p) != t}
    # The small tables of the choice are written again, never what is costly.
    assert changed <= {'transfer_validation.csv', 'natural_validation.csv', 'early_stopping.csv'}


def test_a_lost_stage_is_made_again_and_the_rest_is_kept(copy, finished):
    shutil.rmtree(copy / 'adversarial' / 'resnet-rfn-seed1')
    (copy / 'results' / 'measured.json').unlink()
    (copy / 'results' / 'transfer.csv').unlink()
    run(small_experiment.get_config().to_dict(), copy)
    assert contents(copy) == contents(finished)


def test_a_lost_or_changed_result_is_made_again(copy, finished):
    (copy / 'results' / 'summary.csv').unlink()
    (copy / 'results' / 'transfer.csv').write_text('changed')
    (copy / 'results' / 'validation' / 'resnet-sgd-seed1.json').write_text('{')
    (copy / 'results' / 'measured.json').write_text('5')
    run(small_experiment.get_config().to_dict(), copy)
    assert contents(copy) == contents(finished)


def test_a_lost_epoch_is_trained_again(copy, finished):
    shutil.rmtree(copy / 'surrogates' / 'resnet-rfn' / 'seed0' / 'checkpoints' / '2')
    (copy / 'results' / 'validation' / 'resnet-rfn-seed0.json').unlink()
    run(small_experiment.get_config().to_dict(), copy)
    assert contents(copy) == contents(finished)


@pytest.mark.parametrize('text', [None, '{', '[]'])
def test_an_environment_that_is_missing_or_damaged_is_recorded_again(copy, text):
    (copy / 'environment.json').unlink()
    if text:
        (copy / 'environment.json').write_text(text)
    experiment.train(*opening(small_experiment.get_config().to_dict(), copy))
    assert io.read_json(copy / 'environment.json')['devices'].startswith('8 x ')


def test_a_config_that_does_not_match_the_data_leaves_the_directory_unused(tmp_path):
    config = small_experiment.get_config()
    config.optim.batch_size = 5000
    with pytest.raises(errors.InputError, match='batch_size must be 1 to 1000'):
        opening(config.to_dict(), tmp_path / 'work')
    config.optim.batch_size = 40
    config.targets.vgg.model.stages = ((8,),) * 5
    with pytest.raises(errors.InputError, match='image'):
        opening(config.to_dict(), tmp_path / 'work')
    assert not (tmp_path / 'work').exists()


def test_a_surrogate_that_is_trained_again_is_measured_again(copy):
    shutil.rmtree(copy / 'surrogates' / 'resnet-rfn' / 'seed0')
    other = small_experiment.get_config().to_dict()
    before = storage.load_adversarial_set(copy / 'adversarial' / 'resnet-rfn-seed0' / 'bim')
    shutil.copytree(copy / 'surrogates' / 'resnet-rfn' / 'seed1', copy / 'surrogates' / 'resnet-rfn' / 'seed0')
    run(other, copy)
    after = storage.load_adversarial_set(copy / 'adversarial' / 'resnet-rfn-seed0' / 'bim')
    assert before.origin['weights_sha256'] != after.origin['weights_sha256']
    assert not np.array_equal(before.images, after.images)


def test_no_stage_runs_an_earlier_one(tmp_path, copy):
    config = small_experiment.get_config().to_dict()
    empty = opening(config, tmp_path / 'empty')
    for stage in (experiment.select, experiment.craft, experiment.measure):
        with pytest.raises(errors.InputError, match='train it first'):
            stage(*empty)
    assert not (tmp_path / 'empty').exists()
    plan, workdir = opening(config, copy)
    shutil.rmtree(copy / 'adversarial')
    with pytest.raises(errors.InputError, match='craft it first'):
        experiment.measure(plan, workdir)
    (copy / 'results' / 'test_examples.json').unlink()
    with pytest.raises(errors.InputError, match='holds no test examples for these targets; run rfn-jax craft first'):
        experiment.measure(plan, workdir)
    (copy / 'results' / 'early_stopping.csv').unlink()
    with pytest.raises(errors.InputError, match=r'early_stopping\.csv is missing; choose .* first \(rfn-jax select\)'):
        experiment.craft(plan, workdir)


def test_later_stages_do_not_write_the_tables_of_the_choice(copy):
    plan, workdir = opening(small_experiment.get_config().to_dict(), copy)
    names = ('early_stopping.csv', 'transfer_validation.csv', 'natural_validation.csv')
    before = {name: (copy / 'results' / name).stat().st_mtime_ns for name in names}
    shutil.rmtree(copy / 'adversarial' / 'resnet-early_stopped-seed0')
    (copy / 'results' / 'transfer.csv').unlink()
    experiment.craft(plan, workdir)
    experiment.measure(plan, workdir)
    assert {name: (copy / 'results' / name).stat().st_mtime_ns for name in names} == before
    (chosen,) = rows(copy, 'early_stopping.csv')
    used = {row['epoch'] for row in rows(copy, 'transfer.csv') if row['training'] == 'early_stopped'}
    assert used == {chosen['epoch']}


def test_a_choice_made_with_seeds_that_are_now_left_out_is_not_used(copy):
    config = small_experiment.get_config()
    config.seeds = 1
    opened = opening(config.to_dict(), copy)
    for stage in (experiment.craft, experiment.measure):
        with pytest.raises(
            errors.InputError, match=r'is missing or does not match this config .* choose again \(rfn-jax select\)'
        ):
            stage(*opened)
    for stage in (experiment.select, experiment.craft, experiment.measure):
        stage(*opened)
    assert {row['seed'] for row in rows(copy, 'transfer_validation.csv')} == {'0'}


@pytest.mark.parametrize('stopped_before', ['transfer_validation.csv', 'natural_validation.csv', 'early_stopping.csv'])
def test_a_choice_that_was_stopped_halfway_is_not_used(copy, monkeypatch, stopped_before):
    opened = opening(small_experiment.get_config().to_dict(), copy)
    path = copy / 'results' / 'validation' / 'resnet-sgd-seed0.json'
    figures = json.loads(path.read_text())
    for row in (*figures['transfer'], *figures['natural']):  # as if the surrogate had been measured again
        row.update({'success_rate': row['epoch'] / 8} if 'kind' in row else {'accuracy': row['epoch'] / 8})
    path.write_text(json.dumps(figures))
    write = io.write_bytes

    def stop(path, content):
        if path.name == stopped_before:
            raise KeyboardInterrupt
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(io, 'write_bytes', stop)
        with pytest.raises(KeyboardInterrupt):
            experiment.select(*opened)
    for stage in (experiment.craft, experiment.measure):
        with pytest.raises(errors.InputError, match=f'{stopped_before} is missing or does not match .* choose again'):
            stage(*opened)
    experiment.select(*opened)
    experiment.craft(*opened)
    assert rows(copy, 'early_stopping.csv')[0]['epoch'] == '4'


@pytest.mark.parametrize('name', ['transfer_validation.csv', 'early_stopping.csv'])
def test_a_changed_table_of_the_choice_is_not_used(copy, name):
    path = copy / 'results' / name
    path.write_text(path.read_text().replace(',sgd,', ',rfn,', 1))
    with pytest.raises(errors.InputError, match=f'{name} is missing or does not match'):
        experiment.measure(*opening(small_experiment.get_config().to_dict(), copy))


def test_an_unreadable_surrogate_is_one_clear_line(copy):
    shutil.rmtree(copy / 'adversarial')
    for path in (copy / 'surrogates' / 'resnet-rfn' / 'seed0' / 'checkpoints' / '4').rglob('d/*'):
        path.write_bytes(b'damaged')
    plan, workdir = opening(small_experiment.get_config().to_dict(), copy)
    with pytest.raises(errors.RunError, match=r'could not read checkpoint .*resnet-rfn/seed0/checkpoints/4'):
        experiment.craft(plan, workdir)


def test_no_eligible_example_is_one_clear_line(copy, monkeypatch):
    (copy / 'results' / 'test_examples.json').unlink()
    plan, workdir = opening(small_experiment.get_config().to_dict(), copy)
    wrong = (inputs_lib.open_data(plan).test.labels + 1) % 10
    monkeypatch.setattr(transfer, 'predictions', lambda targets, *_, **__: dict.fromkeys(targets, wrong))
    with pytest.raises(errors.InputError, match=r'none of the 547 examples of digits .* correctly by all targets'):
        experiment.craft(plan, workdir)


@pytest.mark.slow
def test_a_run_killed_at_three_points_gives_the_tables_of_an_undisturbed_one(finished, tmp_path):
    command = [
        sys.executable, '-c', 'import sys; from rfn_jax.cli import main; sys.exit(main.main())', 'run',
        f'--config={small_experiment.__file__}', f'--workdir={tmp_path / "killed"}',
    ]  # fmt: skip
    work = tmp_path / 'killed'
    points = (
        work / 'surrogates' / 'resnet-sgd' / 'seed1' / 'checkpoints' / '2',
        work / 'results' / 'validation' / 'resnet-rfn-seed0.json',
        work / 'adversarial' / 'resnet-early_stopped-seed0' / 'mi' / 'adversarial.npz',
    )
    for point in points:
        assert not point.exists()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        limit = time.monotonic() + 300
        while not point.exists() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.stderr.read()
        process.stderr.close()
        assert point.exists()
        assert not (work / 'results' / 'transfer.csv').exists()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(work) == contents(finished)
    with (work / 'results' / 'transfer.csv').open() as file:
        assert len(list(csv.DictReader(file))) == 36

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import small_experiment

from rfn_jax import experiment, storage, training, transfer
from rfn_jax.core import errors, io
from rfn_jax.experiment import inputs as inputs_lib

SELECTED = ('transfer_validation.csv', 'natural_validation.csv', 'early_stopping.csv')
TABLES = ('transfer.csv', 'natural.csv', 'summary.csv', 'gains.csv', 'examples.csv', *SELECTED)


def opening(directory):
    return small_experiment.opening(small_experiment.get_config(), directory)


def run(directory):
    small_experiment.run(small_experiment.get_config(), directory)


def rows(directory, name):
    with (directory / 'results' / name).open(newline='') as file:
        return list(csv.DictReader(file))


def contents(directory):
    return {name: (directory / 'results' / name).read_bytes() for name in TABLES}


def times(directory, pattern='**/*'):
    return {path: path.stat().st_mtime_ns for path in directory.glob(pattern) if path.is_file()}


def test_tables_have_the_columns_that_readers_rely_on(finished):
    setting = 'surrogate,training,seed,epoch,attack,eps,norm'
    figures = 'target,kind,success_rate,ci_low,ci_high,n,gradient_evaluations'
    assert ','.join(rows(finished, 'transfer.csv')[0]) == f'{setting},{figures}'
    assert ','.join(rows(finished, 'natural.csv')[0]) == 'model,role,training,seed,epoch,accuracy,top5_accuracy,n'


def test_every_training_seed_attack_and_target_has_a_row(finished):
    found = {(r['training'], r['seed'], r['attack'], r['target'], r['kind']) for r in rows(finished, 'transfer.csv')}
    expected = {
        (training, seed, attack, *target)
        for training in ('sgd', 'early_stopped', 'rfn')
        for seed in '01'
        for attack in ('bim', 'mi')
        for target in (('mlp', 'black-box'), ('vgg', 'black-box'), ('small', 'white-box'))
    }
    assert found == expected


def test_the_summary_is_the_mean_over_black_box_rows(finished):
    for row in rows(finished, 'summary.csv'):
        rates = {'black-box': [], 'white-box': []}
        for r in rows(finished, 'transfer.csv'):
            if (r['training'], r['attack']) == (row['training'], row['attack']):
                rates[r['kind']].append(float(r['success_rate']))
        assert len(rates['black-box']) == 4
        assert float(row['success_rate']) == pytest.approx(np.mean(rates['black-box']), abs=2e-6)
        assert float(row['white_box_rate']) == pytest.approx(np.mean(rates['white-box']), abs=2e-6)
        assert float(row['ci_low']) <= float(row['success_rate']) <= float(row['ci_high'])


def test_the_early_stopping_epoch_is_the_best_one_on_validation_targets(finished):
    by_epoch = {}
    for row in rows(finished, 'transfer_validation.csv'):
        assert row['target'] in ('mlp_deep', 'small')
        if row['training'] == 'sgd' and row['kind'] == 'black-box':
            by_epoch.setdefault(int(row['epoch']), []).append(float(row['success_rate']))
    assert sorted(by_epoch) == [2, 4]  # every second one, and 4 is also the first one after the decay at 3
    best = max(by_epoch, key=lambda epoch: (np.mean(by_epoch[epoch]), -epoch))
    (chosen,) = rows(finished, 'early_stopping.csv')
    assert int(chosen['epoch']) == best
    used = {r['epoch'] for r in rows(finished, 'transfer.csv') if r['training'] == 'early_stopped'}
    assert used == {str(best)}


def test_adversarial_sets_are_inside_their_budgets_on_images_that_all_targets_classify_correctly(finished):
    limits = small_experiment.get_config().attacks
    inputs = inputs_lib.Inputs(*opening(finished))
    by_id = dict(zip(inputs.test.ids.tolist(), inputs.test.images, strict=True))
    natural = transfer.predictions(inputs.targets, inputs.test, **inputs.batching)
    right = np.all([predicted == inputs.test.labels for predicted in natural.values()], axis=0)
    for name in ('sgd', 'early_stopped', 'rfn'):
        for attack, order in (('bim', np.inf), ('mi', 2)):
            made = storage.load_adversarial_set(finished / 'adversarial' / f'small-{name}-seed0' / attack)
            assert set(made.ids) <= set(inputs.test.ids[right])
            for identity, image in zip(made.ids.tolist(), made.images, strict=True):
                change = (image.astype(float) - by_id[identity]).ravel() / 255
                assert 0 < np.linalg.norm(change, order) <= limits[attack].eps + 1e-6


def test_a_second_run_does_nothing(copy):
    before = times(copy)
    run(copy)
    changed = {path.name for path, at in times(copy).items() if before.get(path) != at}
    assert changed <= {*SELECTED}  # small tables, which are written again, and never what is costly


def test_a_config_that_does_not_match_the_data_leaves_the_directory_unused(tmp_path):
    config = small_experiment.get_config()
    config.optim.batch_size = 5000
    with pytest.raises(errors.InputError, match='batch_size must be 1 to 1000'):
        small_experiment.opening(config, tmp_path / 'work')
    config.optim.batch_size = 40
    config.targets.vgg.model.stages = ((8,),) * 5
    with pytest.raises(errors.InputError, match='image'):
        small_experiment.opening(config, tmp_path / 'work')
    assert not (tmp_path / 'work').exists()


@pytest.mark.slow
def test_a_surrogate_that_is_trained_again_is_measured_again(copy):
    seeds, crafted = copy / 'surrogates' / 'small-rfn', copy / 'adversarial' / 'small-rfn-seed0' / 'bim'
    before = storage.load_adversarial_set(crafted)
    shutil.rmtree(seeds / 'seed0')
    shutil.copytree(seeds / 'seed1', seeds / 'seed0')
    run(copy)
    after = storage.load_adversarial_set(crafted)
    assert before.origin['weights_sha256'] != after.origin['weights_sha256']
    assert not np.array_equal(before.images, after.images)


def test_no_stage_runs_an_earlier_one(tmp_path):
    empty = opening(tmp_path / 'empty')
    for stage in small_experiment.STAGES[1:]:
        with pytest.raises(errors.InputError, match='train it first'):
            stage(*empty)
    assert not (tmp_path / 'empty').exists()


@pytest.mark.slow
def test_later_stages_do_not_write_the_tables_of_the_choice(copy):
    before = {name: times(copy / 'results', name) for name in SELECTED}
    shutil.rmtree(copy / 'adversarial' / 'small-early_stopped-seed0')
    (copy / 'results' / 'transfer.csv').unlink()
    small_experiment.run(small_experiment.get_config(), copy, (experiment.craft, experiment.measure))
    assert {name: times(copy / 'results', name) for name in SELECTED} == before
    (chosen,) = rows(copy, 'early_stopping.csv')
    used = {row['epoch'] for row in rows(copy, 'transfer.csv') if row['training'] == 'early_stopped'}
    assert used == {chosen['epoch']}


@pytest.mark.slow
def test_a_choice_made_with_seeds_that_are_now_left_out_is_not_used(copy):
    config = small_experiment.get_config()
    config.seeds = 1
    opened = small_experiment.opening(config, copy)
    for stage in (experiment.craft, experiment.measure):
        with pytest.raises(
            errors.InputError, match=r'is missing or does not match this config .* choose again \(rfn-jax select\)'
        ):
            stage(*opened)
    for stage in small_experiment.STAGES[1:]:
        stage(*opened)
    assert {row['seed'] for row in rows(copy, 'transfer_validation.csv')} == {'0'}


@pytest.mark.parametrize('stopped_before', SELECTED)
def test_a_choice_that_was_stopped_halfway_is_not_used(copy, monkeypatch, stopped_before):
    opened = opening(copy)
    path = copy / 'results' / 'validation' / 'small-sgd-seed0.json'
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


def test_no_eligible_example_is_one_clear_line(copy, monkeypatch):
    (copy / 'results' / 'test_examples.json').unlink()
    plan, workdir = opening(copy)
    labels = inputs_lib.open_data(plan).test.labels

    def predict_all(targets, *_, **__):
        return training.Predictions(labels, dict.fromkeys(targets, (labels + 1) % 10), {})

    monkeypatch.setattr(training, 'predict_all', predict_all)
    with pytest.raises(errors.InputError, match=r'none of the 547 examples of digits .* correctly by all targets'):
        experiment.craft(plan, workdir)


@pytest.mark.slow
def test_a_run_killed_at_three_points_gives_the_tables_of_an_undisturbed_one(finished, tmp_path):
    work = tmp_path / 'killed'
    command = [sys.executable, '-m', 'rfn_jax', 'run', f'--config={small_experiment.__file__}', f'--workdir={work}']
    for point in (
        'surrogates/small-sgd/seed1/checkpoints/2',
        'results/validation/small-rfn-seed0.json',
        'adversarial/small-early_stopped-seed0/mi/adversarial.npz',
    ):
        assert not (work / point).exists()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        limit = time.monotonic() + 300
        while not (work / point).exists() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.stderr.read()
        process.stderr.close()
        assert (work / point).exists()
        assert not (work / 'results' / 'transfer.csv').exists()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(work) == contents(finished)
    assert len(rows(work, 'transfer.csv')) == 36

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from rfn_jax import models, training
from rfn_jax.core import digests, errors, rng


def digest(state):
    return digests.of_arrays(jax.tree.map(np.asarray, state))


@pytest.mark.accelerator
def test_a_run_that_stopped_after_any_epoch_ends_with_the_same_bits(bench, tmp_path):
    bench.fit(tmp_path / 'whole')
    whole = bench.state(tmp_path / 'whole', 3)
    for stopped in (1, 2):
        part = tmp_path / f'part{stopped}'
        shutil.copytree(tmp_path / 'whole', part)
        for epoch in range(stopped + 1, 4):
            shutil.rmtree(part / 'checkpoints' / str(epoch))
        with (part / 'metrics.jsonl').open('a') as file:
            file.write('{"epoch": 4, "lo')  # cut short by a kill
        bench.fit(part)
        assert digest(bench.state(part, 3)) == digest(whole)
        lines = [json.loads(line) for line in (part / 'metrics.jsonl').read_text().splitlines()]
        assert [line['epoch'] for line in lines] == [1, 2, 3]


def test_same_seed_same_bits_and_other_seed_other_bits(bench, tmp_path):
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        bench.fit(tmp_path / name, seed=seed, epochs=1)
    a, b, c = (digest(bench.state(tmp_path / name, 1)) for name in 'abc')
    assert a == b
    assert a != c


@pytest.mark.parametrize('missing', [1, 2, 3])
def test_an_epoch_that_is_missing_is_made_again(bench, tmp_path, missing):
    bench.fit(tmp_path)
    last = digest(bench.state(tmp_path, 3))
    before = {epoch: bench.variables_digest(tmp_path, epoch) for epoch in (1, 2, 3)}
    shutil.rmtree(tmp_path / 'checkpoints' / str(missing))
    bench.fit(tmp_path)
    assert {epoch: bench.variables_digest(tmp_path, epoch) for epoch in (1, 2, 3)} == before
    assert digest(bench.state(tmp_path, 3)) == last
    assert [json.loads(line)['epoch'] for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()] == [1, 2, 3]


def test_only_the_newest_checkpoints_hold_the_state_of_the_optimizer(bench, tmp_path):
    bench.fit(tmp_path, epochs=4)
    held = [(tmp_path / 'checkpoints' / str(epoch) / 'optimizer').exists() for epoch in (1, 2, 3, 4)]
    assert held == [False, False, True, True]
    with training.CheckpointStore(tmp_path / 'checkpoints', keep_all=True) as store:
        assert store.epochs() == [1, 2, 3, 4]
        assert store.resumable() == [3, 4]
        store.restore_classifier(1, bench.classifier)
        with pytest.raises(errors.RunError, match=r'could not read checkpoint .*/checkpoints/1'):
            store.restore(1, training.create(bench.classifier, bench.optimizer()))


def test_checkpoints_of_another_model_are_refused_and_kept(bench, tmp_path):
    bench.fit(tmp_path, epochs=2)
    module = models.MODELS.make('mlp', num_classes=10, widths=(16,))
    other = models.initialise(module, rng.key_for(0, 'other'), (8, 8, 1), num_classes=10)
    with pytest.raises(errors.InputError, match=r'checkpoint .*/2 is of another model or optimizer: .*\[32'):
        dataclasses.replace(bench, classifier=other).fit(tmp_path)
    with pytest.raises(errors.InputError, match='is of another model or optimizer'):
        bench.fit(tmp_path, minimiser={'name': 'sgd'})
    with training.CheckpointStore(tmp_path / 'checkpoints', keep_all=True) as store:
        assert store.epochs() == [1, 2]


def test_a_finished_run_is_left_alone(bench, tmp_path):
    bench.fit(tmp_path, epochs=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    bench.fit(tmp_path, epochs=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before


def test_a_damaged_newest_checkpoint_is_reported_and_made_again(bench, tmp_path, capsys):
    bench.fit(tmp_path, epochs=2)
    whole = digest(bench.state(tmp_path, 2))
    bench.fit(tmp_path / 'other', epochs=2)
    (tmp_path / 'other' / 'metrics.jsonl').unlink()
    damaged = tmp_path / 'other' / 'checkpoints'
    shutil.rmtree(damaged / '2')
    shutil.copytree(damaged / '1', damaged / '2')  # a finished epoch 2 whose arrays are not what its optimizer says
    for path in (damaged / '2' / 'optimizer' / 'd').rglob('*'):
        path.write_bytes(b'damaged')
    # The last epoch is looked at only when it is used, so ask for one more.
    bench.fit(tmp_path / 'other', epochs=3)
    bench.fit(tmp_path, epochs=3)
    printed = capsys.readouterr().out
    assert 'could not read checkpoint' in printed
    assert f'moved to {tmp_path / "other" / "damaged_epoch2"}' in printed
    assert digest(bench.state(tmp_path / 'other', 2)) == whole
    assert digest(bench.state(tmp_path / 'other', 3)) == digest(bench.state(tmp_path, 3))


def test_several_hosts_are_refused(bench, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(jax, 'process_count', lambda: 2)
        with pytest.raises(errors.InputError, match='run on one host so far, not on 2; start one process'):
            bench.fit(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_learning_rate_decays_at_the_epoch(bench, tmp_path):
    bench.fit(tmp_path, decay_epochs=(2,))
    rates = [json.loads(line)['learning_rate'] for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    np.testing.assert_allclose(rates, [0.05, 0.05, 0.005], rtol=1e-6)


def test_metrics_are_those_of_the_checkpoint(bench, tmp_path):
    bench.fit(tmp_path, epochs=2)
    last = json.loads((tmp_path / 'metrics.jsonl').read_text().splitlines()[-1])
    classifier = bench.classifier.replace(variables=bench.state(tmp_path, 2).variables)
    logits = classifier(bench.validation.images.astype(np.float32) / 255)
    assert last['validation_accuracy'] == pytest.approx(np.mean(np.argmax(logits, -1) == bench.validation.labels))


def test_targets_keep_the_latest_two(bench, tmp_path):
    bench.fit(tmp_path, keep_all=False)
    with training.CheckpointStore(tmp_path / 'checkpoints', keep_all=False) as store:
        assert store.epochs() == [2, 3]


def test_a_diverged_run_says_so_and_keeps_what_it_had(bench, tmp_path):
    bench.fit(tmp_path, epochs=1)
    with pytest.raises(errors.RunError, match=r'loss is (nan|inf).* of epoch 2.*learning rate below 1e\+30'):
        bench.fit(tmp_path, epochs=3, learning_rate=1e30)
    with training.CheckpointStore(tmp_path / 'checkpoints', keep_all=True) as store:
        assert store.epochs() == [1]


def test_batch_size_must_fit_the_devices(bench, tmp_path):
    with pytest.raises(errors.InputError, match='batch_size 12 does not divide over 8 devices'):
        bench.fit(tmp_path, batch_size=12)
    with pytest.raises(errors.InputError, match='batch_size must be 1 to 64'):
        bench.fit(tmp_path, batch_size=128)

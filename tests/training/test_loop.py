import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from rfn_jax import models, training
from rfn_jax.core import digests, errors, rng
from rfn_jax.training import epoch as epoch_lib


class Killed(BaseException):
    """Raised by a test to stop a run."""


def digest(state):
    return digests.of_arrays(jax.tree.map(np.asarray, state))


def kill_before(monkeypatch, owner, name, epoch):
    """Stops a run just before it calls a method with the arguments `(self, epoch, ...)` for a given epoch."""
    called = getattr(owner, name)

    def method(self, number, *arguments, **options):
        if number == epoch:
            raise Killed
        return called(self, number, *arguments, **options)

    monkeypatch.setattr(owner, name, method)


@pytest.fixture
def epochs_run(monkeypatch):
    """The epochs that have been trained, in order."""
    found, run = [], epoch_lib.run

    def counted(program, state, loader, epoch, *, name):
        found.append(epoch)
        return run(program, state, loader, epoch, name=name)

    monkeypatch.setattr(epoch_lib, 'run', counted)
    return found


def lines(directory):
    """The metrics of each epoch, without those that differ from run to run."""
    found = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != 'seconds'} for line in found]


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
            file.write('{"epoch": 4, "lo')  # truncated by a kill
        bench.fit(part)
        assert digest(bench.state(part, 3)) == digest(whole)
        assert lines(part) == lines(tmp_path / 'whole')


def test_same_seed_same_bits_and_other_seed_other_bits(bench, tmp_path):
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        bench.fit(tmp_path / name, seed=seed, epochs=1)
    a, b, c = (digest(bench.state(tmp_path / name, 1)) for name in 'abc')
    assert a == b
    assert a != c


@pytest.mark.parametrize('missing', [1, 2, 3])
def test_a_missing_epoch_is_trained_again(bench, tmp_path, missing):
    bench.fit(tmp_path)
    last = digest(bench.state(tmp_path, 3))
    before = {epoch: bench.variables_digest(tmp_path, epoch) for epoch in (1, 2, 3)}
    shutil.rmtree(tmp_path / 'checkpoints' / str(missing))
    bench.fit(tmp_path)
    assert {epoch: bench.variables_digest(tmp_path, epoch) for epoch in (1, 2, 3)} == before
    assert digest(bench.state(tmp_path, 3)) == last
    assert [line['epoch'] for line in lines(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize(('owner', 'name'), [(training.MetricsLog, 'write'), (training.CheckpointStore, 'save')])
def test_a_kill_between_the_metrics_and_the_checkpoint_loses_neither(bench, tmp_path, monkeypatch, owner, name):
    bench.fit(tmp_path / 'whole')
    with monkeypatch.context() as patch:
        kill_before(patch, owner, name, 2)
        with pytest.raises(Killed):
            bench.fit(tmp_path / 'killed')
    bench.fit(tmp_path / 'killed')
    assert lines(tmp_path / 'killed') == lines(tmp_path / 'whole')
    assert digest(bench.state(tmp_path / 'killed', 3)) == digest(bench.state(tmp_path / 'whole', 3))


def test_a_killed_repair_resumes_and_stops_after_the_last_missing_epoch(bench, tmp_path, monkeypatch, epochs_run):
    bench.fit(tmp_path, epochs=6)
    before = {epoch: bench.variables_digest(tmp_path, epoch) for epoch in range(1, 7)}
    metrics = lines(tmp_path)
    for epoch in (2, 3, 4):
        shutil.rmtree(tmp_path / 'checkpoints' / str(epoch))
    with monkeypatch.context() as patch:
        kill_before(patch, training.CheckpointStore, 'save', 4)
        with pytest.raises(Killed):
            bench.fit(tmp_path, epochs=6)
    assert lines(tmp_path) == metrics  # including those of the later epochs, which are kept
    epochs_run.clear()
    bench.fit(tmp_path, epochs=6)
    assert epochs_run == [4]
    assert {epoch: bench.variables_digest(tmp_path, epoch) for epoch in range(1, 7)} == before
    assert lines(tmp_path) == metrics
    with training.CheckpointStore(tmp_path / 'checkpoints') as store:
        assert store.resumable_epochs() == [5, 6]


def test_a_state_before_a_gap_is_kept_although_later_epochs_are_complete(bench, tmp_path, monkeypatch, epochs_run):
    bench.fit(tmp_path, epochs=6)
    for epoch in (1, 4):
        shutil.rmtree(tmp_path / 'checkpoints' / str(epoch))
    with monkeypatch.context() as patch:
        kill_before(patch, training.CheckpointStore, 'save', 4)
        with pytest.raises(Killed):
            bench.fit(tmp_path, epochs=6)
    epochs_run.clear()
    bench.fit(tmp_path, epochs=6)
    assert epochs_run == [2, 3, 4]  # from the state of epoch 1, which was made again


def test_only_the_newest_checkpoints_hold_the_state_of_the_optimizer(bench, tmp_path):
    bench.fit(tmp_path, epochs=4)
    held = [(tmp_path / 'checkpoints' / str(epoch) / 'optimizer').exists() for epoch in (1, 2, 3, 4)]
    assert held == [False, False, True, True]
    with training.CheckpointStore(tmp_path / 'checkpoints', keep_all=True) as store:
        assert store.epochs() == [1, 2, 3, 4]
        assert store.resumable_epochs() == [3, 4]
        store.restore_classifier(1, bench.classifier)
        with pytest.raises(errors.RunError, match=r'could not read checkpoint .*/checkpoints/1'):
            store.restore(1, training.create(bench.classifier, bench.optimizer()))


def test_checkpoints_of_another_model_are_refused_and_kept(bench, tmp_path):
    bench.fit(tmp_path, epochs=2)
    module = models.MODELS.make('mlp', num_classes=10, widths=(16,))
    other = models.initialize(module, rng.key_for(0, 'other'), (8, 8, 1), num_classes=10)
    with pytest.raises(errors.InputError, match=r'checkpoint .*/2 belongs to another model or optimizer: .*\[32'):
        dataclasses.replace(bench, classifier=other).fit(tmp_path)
    with pytest.raises(errors.InputError, match='belongs to another model or optimizer'):
        bench.fit(tmp_path, minimizer={'name': 'sgd'})
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
    shutil.copytree(damaged / '1', damaged / '2')  # a finished epoch 2 whose arrays do not match its optimizer
    for path in (damaged / '2' / 'optimizer' / 'd').rglob('*'):
        path.write_bytes(b'damaged')
    # The last checkpoint is read only when it is needed, so ask for one more epoch.
    bench.fit(tmp_path / 'other', epochs=3)
    bench.fit(tmp_path, epochs=3)
    printed = capsys.readouterr().out
    assert 'could not read checkpoint' in printed
    assert f'moved to {tmp_path / "other" / "damaged_epoch2"}' in printed
    assert digest(bench.state(tmp_path / 'other', 2)) == whole
    assert digest(bench.state(tmp_path / 'other', 3)) == digest(bench.state(tmp_path, 3))


@pytest.mark.parametrize('damaged', [b'\xff\xfe{"epoch": 1}\n', b'[1]\n7\n{"epoch": "1"}\n{"epoch": [1]}\n{}\n', b''])
def test_damaged_metrics_are_dropped(tmp_path, damaged):
    (tmp_path / 'metrics.jsonl').write_bytes(b'{"epoch": 3, "loss": 0.5}\n' + damaged + b'{"epoch": 1, "loss": 2.0}\n')
    training.MetricsLog(tmp_path / 'metrics.jsonl', keep={1, 3}).write(2, loss=1.0)
    assert [(line['epoch'], line['loss']) for line in lines(tmp_path)] == [(1, 2.0), (2, 1.0), (3, 0.5)]


def test_a_directory_that_cannot_be_written_is_reported_before_the_first_epoch(bench, tmp_path, epochs_run):
    (tmp_path / 'file').write_text('')
    with pytest.raises(errors.RunError, match=r'could not write .*file/metrics\.jsonl'):
        bench.fit(tmp_path / 'file')
    assert not epochs_run


def test_several_hosts_are_refused(bench, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(jax, 'process_count', lambda: 2)
        with pytest.raises(errors.InputError, match='run on only one host for now, not on 2; start one process'):
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


def test_a_diverged_run_says_so_and_keeps_earlier_checkpoints(bench, tmp_path):
    bench.fit(tmp_path, epochs=1)
    with pytest.raises(errors.RunError, match=r'loss is (nan|inf).* of epoch 2.*learning rate below 1e\+30'):
        bench.fit(tmp_path, epochs=3, learning_rate=1e30)
    with training.CheckpointStore(tmp_path / 'checkpoints', keep_all=True) as store:
        assert store.epochs() == [1]


def test_batch_size_must_match_the_devices_and_the_examples(bench, tmp_path):
    with pytest.raises(errors.InputError, match='batch_size 12 does not divide evenly over 8 devices'):
        bench.fit(tmp_path, batch_size=12)
    with pytest.raises(errors.InputError, match='batch_size must be 1 to 64'):
        bench.fit(tmp_path, batch_size=128)

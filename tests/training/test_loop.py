import dataclasses
import shutil

import numpy as np
import pytest
from batch_of import metrics_of

from rfn_jax import models, training
from rfn_jax.core import errors, rng
from rfn_jax.training import epoch as epoch_lib


class Killed(BaseException):
    """Raised by a test to stop a run."""


@pytest.fixture
def run(trained, tmp_path):
    """A copy of `trained`."""
    return shutil.copytree(trained, tmp_path / 'run')


@pytest.fixture
def epochs_run(monkeypatch):
    """The epochs that have been trained, in order."""
    found, run = [], epoch_lib.run

    def counted(program, trainees, epoch):
        found.append(epoch)
        return run(program, trainees, epoch)

    monkeypatch.setattr(epoch_lib, 'run', counted)
    return found


def delete(directory, *epochs):
    for epoch in epochs:
        shutil.rmtree(directory / 'checkpoints' / str(epoch))


def contents(bench, directory, epochs=3):
    """Everything that a run leaves."""
    variables = [bench.variables_digest(directory, epoch) for epoch in range(1, epochs + 1)]
    return variables, bench.digest(directory, epochs), metrics_of(directory)


def fit_and_kill(bench, directory, epoch, *, owner=training.CheckpointStore, name='save', **options):
    """Stops a run just before it calls a method with the arguments `(self, epoch, ...)` for a given epoch."""
    called = getattr(owner, name)

    def method(self, number, *arguments, **options):
        if number == epoch:
            raise Killed
        return called(self, number, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, method)
        with pytest.raises(Killed):
            bench.fit(directory, **options)


def files(directory):
    return {path: path.stat().st_mtime_ns for path in directory.rglob('*')}


@pytest.mark.accelerator
@pytest.mark.parametrize('missing', [(1,), (2,), (3,), (2, 3)])
def test_a_run_with_missing_epochs_ends_with_the_same_bits(bench, trained, run, missing):
    delete(run, *missing)
    with (run / 'metrics.jsonl').open('a') as file:
        file.write('{"epoch": 4, "lo')  # truncated by a kill
    bench.fit(run)
    assert contents(bench, run) == contents(bench, trained)


def test_same_seed_same_bits_and_other_seed_other_bits(bench, trained, tmp_path):
    for name, seed in (('b', 0), ('c', 1)):
        bench.fit(tmp_path / name, seed=seed)
    a, b, c = (bench.digest(directory, 3) for directory in (trained, tmp_path / 'b', tmp_path / 'c'))
    assert a == b
    assert a != c


@pytest.mark.parametrize(('owner', 'name'), [(training.MetricsLog, 'write'), (training.CheckpointStore, 'save')])
def test_a_kill_between_the_metrics_and_the_checkpoint_loses_neither(bench, trained, tmp_path, owner, name):
    fit_and_kill(bench, tmp_path, 2, owner=owner, name=name)
    bench.fit(tmp_path)
    assert contents(bench, tmp_path) == contents(bench, trained)


@pytest.mark.slow
def test_killed_repairs_resume_and_stop_after_the_last_missing_epoch(bench, tmp_path, epochs_run):
    whole, part = tmp_path / 'whole', tmp_path / 'part'
    bench.fit(whole, epochs=6)
    shutil.copytree(whole, part)
    delete(part, 2, 3, 4)
    fit_and_kill(bench, part, 4, epochs=6)
    assert metrics_of(part) == metrics_of(whole)  # including those of the later epochs, which are kept
    epochs_run.clear()
    bench.fit(part, epochs=6)
    assert epochs_run == [4]
    assert contents(bench, part, 6) == contents(bench, whole, 6)
    with training.CheckpointStore(part / 'checkpoints') as store:
        assert store.resumable_epochs() == [5, 6]
    delete(part, 1, 4)
    fit_and_kill(bench, part, 4, epochs=6)
    epochs_run.clear()
    bench.fit(part, epochs=6)
    assert epochs_run == [2, 3, 4]  # from the state of epoch 1, which was made again


def test_only_the_newest_checkpoints_hold_the_state_of_the_optimizer(bench, trained):
    held = [(trained / 'checkpoints' / str(epoch) / 'optimizer').exists() for epoch in (1, 2, 3)]
    assert held == [False, True, True]
    with training.CheckpointStore(trained / 'checkpoints', keep_all=True) as store:
        assert store.epochs() == [1, 2, 3]
        assert store.resumable_epochs() == [2, 3]
        store.restore_classifier(1, bench.classifier)
        with pytest.raises(errors.RunError, match=r'could not read checkpoint .*/checkpoints/1'):
            store.restore(1, training.create(bench.classifier, bench.optimizer()))


def test_checkpoints_of_another_model_are_refused_and_kept(bench, run):
    module = models.MODELS.make('mlp', num_classes=10, widths=(16,))
    other = models.initialize(module, rng.key_for(0, 'other'), (8, 8, 1), num_classes=10)
    with pytest.raises(errors.InputError, match=r'checkpoint .*/3 belongs to another model or optimizer: .*\[32'):
        dataclasses.replace(bench, classifier=other, programs={}).fit(run, epochs=4)
    with pytest.raises(errors.InputError, match='belongs to another model or optimizer'):
        bench.fit(run, epochs=4, minimizer={'name': 'sgd'})
    with training.CheckpointStore(run / 'checkpoints', keep_all=True) as store:
        assert store.epochs() == [1, 2, 3]


def test_a_finished_run_is_left_alone(bench, run):
    before = files(run)
    bench.fit(run)
    assert files(run) == before


def test_a_damaged_newest_checkpoint_is_reported_and_made_again(bench, trained, run, capsys):
    (run / 'metrics.jsonl').unlink()
    checkpoints = run / 'checkpoints'
    delete(run, 3)
    shutil.copytree(checkpoints / '2', checkpoints / '3')  # a finished epoch 3 whose arrays do not match its optimizer
    for path in (checkpoints / '3' / 'optimizer' / 'd').rglob('*'):
        path.write_bytes(b'damaged')
    # The last checkpoint is read only when it is needed, so ask for one more epoch.
    bench.fit(run, epochs=4)
    printed = capsys.readouterr().out
    assert 'could not read checkpoint' in printed
    assert f'moved to {run / "damaged_epoch3"}' in printed
    assert bench.digest(run, 3) == bench.digest(trained, 3)


@pytest.mark.parametrize('damaged', [b'\xff\xfe{"epoch": 1}\n', b'[1]\n7\n{"epoch": "1"}\n{"epoch": [1]}\n{}\n', b''])
def test_damaged_metrics_are_dropped(tmp_path, damaged):
    (tmp_path / 'metrics.jsonl').write_bytes(b'{"epoch": 3, "loss": 0.5}\n' + damaged + b'{"epoch": 1, "loss": 2.0}\n')
    training.MetricsLog(tmp_path / 'metrics.jsonl', keep={1, 3}).write(2, loss=1.0)
    assert [(line['epoch'], line['loss']) for line in metrics_of(tmp_path)] == [(1, 2.0), (2, 1.0), (3, 0.5)]


def test_what_cannot_run_is_refused_before_the_first_epoch(bench, tmp_path, epochs_run):
    (tmp_path / 'file').write_text('')
    with pytest.raises(errors.RunError, match=r'could not write .*file/metrics\.jsonl'):
        bench.fit(tmp_path / 'file')
    for batch_size, message in ((12, 'does not divide evenly over 8 devices'), (128, 'must be 1 to 64')):
        with pytest.raises(errors.InputError, match=rf'batch_size ({batch_size} )?{message}'):
            bench.fit(tmp_path, batch_size=batch_size)
    with pytest.raises(
        errors.InputError, match='shard_parameters 3 does not divide 8 devices; the nearest that does is 2'
    ):
        bench.fit(tmp_path, shard_parameters=3)
    assert not epochs_run
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_metrics_are_those_of_the_checkpoint(bench, trained):
    classifier = bench.classifier.replace(variables=bench.state(trained, 3).variables)
    right = np.argmax(classifier(bench.validation.images.astype(np.float32) / 255), -1) == bench.validation.labels
    assert metrics_of(trained)[-1]['validation_accuracy'] == pytest.approx(np.mean(right))


def test_the_learning_rate_decays_at_the_epoch_and_targets_keep_the_latest_two(bench, tmp_path):
    bench.fit(tmp_path, keep_all=False, decay_epochs=(2,))
    rates = [line['learning_rate'] for line in metrics_of(tmp_path)]
    np.testing.assert_allclose(rates, [0.05, 0.05, 0.005], rtol=1e-6)
    with training.CheckpointStore(tmp_path / 'checkpoints', keep_all=False) as store:
        assert store.epochs() == [2, 3]


def test_a_diverged_run_says_so_and_keeps_earlier_checkpoints(bench, run):
    with pytest.raises(errors.RunError, match=r'loss is (nan|inf).* of epoch 4.*learning rate below 1e\+30'):
        bench.fit(run, epochs=5, learning_rate=1e30)
    with training.CheckpointStore(run / 'checkpoints', keep_all=True) as store:
        assert store.epochs() == [1, 2, 3]

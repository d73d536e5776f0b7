"""Runs that are asked to stop between two steps of an epoch; `bench` has 4 steps an epoch and 3 epochs."""

import itertools
import json
import shutil

import pytest
from batch_of import metrics_of

from rfn_jax import training
from rfn_jax.core import errors, preemption


def fit_until(bench, directory, calls, **options):
    """Runs, for one directory or one of each seed, until `is_requested` has been asked so often; returns the message."""
    asked, fit = itertools.count(1), bench.fit_several if isinstance(directory, dict) else bench.fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preemption, 'is_requested', lambda: next(asked) == calls)
        with pytest.raises(errors.PreemptedError) as stopped:
            fit(directory, **options)
    return str(stopped.value)


def contents(bench, directory):
    return bench.digest(directory, 3), [bench.variables_digest(directory, epoch) for epoch in (1, 2, 3)]


@pytest.mark.parametrize(
    ('options', 'calls', 'where'),
    [
        ({}, (1, 7, 1, 3), ['step 0 of epoch 1', 'step 2 of epoch 2', 'step 2 of epoch 2', 'step 0 of epoch 3']),
        ({'streaming': True}, (2, 6), ['step 1 of epoch 1', 'step 2 of epoch 2']),
        ({'steps_per_call': 2}, (2, 5), ['step 2 of epoch 1', 'step 2 of epoch 3']),
    ],
)
def test_a_run_that_is_stopped_anywhere_ends_with_the_same_bits(bench, trained, tmp_path, options, calls, where):
    for number, place in zip(calls, where, strict=True):
        message = fit_until(bench, tmp_path, number, **options)
        assert message == f'test: stopped by SIGTERM after {place}; run the same command again to continue'
    bench.fit(tmp_path, **options)
    assert contents(bench, tmp_path) == contents(bench, trained)
    assert metrics_of(tmp_path) == metrics_of(trained)
    assert not (tmp_path / 'interrupted').exists()


@pytest.mark.parametrize('damage', ['progress', 'state', 'older'])
def test_a_state_that_is_damaged_or_older_than_the_newest_checkpoint_is_not_used(bench, trained, tmp_path, damage):
    fit_until(bench, tmp_path, 7)
    path = tmp_path / 'interrupted' / 'progress.json'
    if damage == 'progress':
        path.write_text('{"epoch": 2')
    elif damage == 'state':
        shutil.rmtree(tmp_path / 'interrupted' / '2')
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | {'epoch': 1}))
    bench.fit(tmp_path)
    assert contents(bench, tmp_path) == contents(bench, trained)
    assert metrics_of(tmp_path) == metrics_of(trained)


def test_a_newer_state_survives_the_loss_of_the_checkpoint_before_it(bench, trained, tmp_path):
    fit_until(bench, tmp_path, 7)
    shutil.rmtree(tmp_path / 'checkpoints' / '1')
    bench.fit(tmp_path)
    with training.CheckpointStore(tmp_path / 'checkpoints') as store:
        assert store.epochs() == [1, 2, 3]
    assert contents(bench, tmp_path) == contents(bench, trained)

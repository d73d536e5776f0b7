"""Networks that are trained together, in one program, end like networks that are trained alone.

Rounding differs, and training amplifies it: these runs are calm and short, so that it stays small. An epoch has 4 steps.
"""

import shutil

import jax
import numpy as np
import pytest
from batch_of import metrics_of
from test_interruption import fit_until
from test_many_devices import results

from rfn_jax import training
from rfn_jax.core import errors
from rfn_jax.training import epoch as epoch_lib

CALM = {'epochs': 2, 'learning_rate': 0.005, 'minimizer': {'name': 'rfn_sam', 'rho': 0.05}}


def directories(path, seeds=(0, 1, 2, 3)):
    return {seed: path / str(seed) for seed in seeds}


@pytest.fixture(scope='module')
def alone(bench, tmp_path_factory):
    """Four runs of their own."""
    found = directories(tmp_path_factory.mktemp('alone'))
    for seed, directory in found.items():
        bench.fit(directory, seed=seed, **CALM)
    return found


@pytest.fixture
def groups_run(monkeypatch):
    """The networks that have been trained together and their epoch, in order."""
    found, run = [], epoch_lib.run

    def recorded(program, trainees, epoch):
        found.append((epoch, *(trainee.loader.seed for trainee in trainees)))
        return run(program, trainees, epoch)

    monkeypatch.setattr(epoch_lib, 'run', recorded)
    return found


def check_same(bench, found, expected):
    for directory, other in zip(found.values(), expected.values(), strict=True):
        for epoch in (1, 2):
            variables = [
                training.CheckpointStore(path / 'checkpoints').restore_classifier(epoch, bench.classifier).variables
                for path in (directory, other)
            ]
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *variables)
        states = [bench.state(path, 2) for path in (directory, other)]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *states)
        assert len(metrics_of(directory)) == len(metrics_of(other)) == 2
        for line, other_line in zip(metrics_of(directory), metrics_of(other), strict=True):
            assert line == pytest.approx(other_line, rel=1e-4)


@pytest.mark.accelerator
def test_four_seeds_together_are_four_seeds_alone_and_are_compiled_once(bench, alone, tmp_path, groups_run, caplog):
    with jax.log_compiles():
        bench.fit_several(directories(tmp_path), **CALM)
    assert caplog.text.count('Finished XLA compilation of jit(step_of_several)') == 1
    assert 'jit(step)' not in caplog.text
    check_same(bench, directories(tmp_path), alone)
    assert groups_run == [(1, 0, 1, 2, 3), (2, 0, 1, 2, 3)]


@pytest.mark.slow
@pytest.mark.accelerator
@pytest.mark.parametrize(
    'options',
    [
        {},
        {'steps_per_call': 3},
        {'streaming': True},
        {'group_size': 4},
        {'micro_batch_size': 8},
        {'shard_parameters': True},
    ],
    ids=str,
)
def test_so_are_networks_with_batch_normalization_in_every_mode(conv_bench, tmp_path, options):
    together, alone = directories(tmp_path / 'together', (5, 6, 7)), directories(tmp_path / 'alone', (5, 6, 7))
    conv_bench.fit_several(together, **CALM, **options)
    for seed, directory in alone.items():
        conv_bench.fit(directory, seed=seed, **CALM, **options)
    check_same(conv_bench, together, alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    'minimizer',
    [{'name': 'looksam', 'k': 2}, {'name': 'esam'}, {'name': 'asam'}, {'name': 'friendly_sam'}, {'name': 'sgd'}],
    ids=lambda minimizer: minimizer['name'],
)
def test_so_is_every_minimizer(bench, tmp_path, minimizer):
    together, alone = directories(tmp_path / 'together', (0, 1)), directories(tmp_path / 'alone', (0, 1))
    options = CALM | {'minimizer': minimizer}
    bench.fit_several(together, **options)
    for seed, directory in alone.items():
        bench.fit(directory, seed=seed, **options)
    for directory, other in zip(together.values(), alone.values(), strict=True):
        states = [bench.state(path, 2, minimizer=minimizer) for path in (directory, other)]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *states)


@pytest.mark.slow
def test_all_are_saved_when_they_are_stopped_and_end_with_the_same_bits(bench, tmp_path, groups_run):
    whole, stopped = directories(tmp_path / 'whole', (0, 1)), directories(tmp_path / 'stopped', (0, 1))
    bench.fit_several(whole, **CALM)
    message = fit_until(bench, stopped, 7, **CALM)
    assert message.startswith('test and 1 more: stopped by SIGTERM after step 2 of epoch 2; run the same')
    assert all((directory / 'interrupted').exists() for directory in stopped.values())
    groups_run.clear()
    bench.fit_several(stopped, **CALM)
    assert groups_run == [(2, 0, 1)]
    for seed, directory in stopped.items():
        assert bench.digest(directory, 2) == bench.digest(whole[seed], 2)
        assert metrics_of(directory) == metrics_of(whole[seed])
        assert not (directory / 'interrupted').exists()


def test_those_that_are_behind_go_first_and_finished_ones_are_left_alone(bench, alone, tmp_path, groups_run):
    together = directories(tmp_path, (0, 1, 2))
    shutil.copytree(alone[0], together[0])
    bench.fit(together[1], seed=1, **{**CALM, 'epochs': 1})
    fit_until(bench, together[2], 7, seed=2, **CALM)  # in the middle of epoch 2
    groups_run.clear()
    fit_until(bench, together, 3, **CALM)  # after two steps of seed 1, which is then where seed 2 is
    bench.fit_several(together, **CALM)
    assert groups_run == [(2, 1), (2, 1, 2)]
    shutil.rmtree(together[1] / 'checkpoints')
    groups_run.clear()
    bench.fit_several(together, **CALM)
    assert groups_run == [(1, 1), (2, 1)]
    check_same(bench, together, {seed: alone[seed] for seed in together})


def test_one_that_diverges_is_named(bench, tmp_path):
    with pytest.raises(errors.RunError, match=r'test( 1)?: the loss is (nan|inf) at step \d of epoch 1;'):
        bench.fit_several(directories(tmp_path, (0, 1)), **CALM | {'learning_rate': 1e30})


@pytest.mark.slow
@pytest.mark.parametrize(('processes', 'devices'), [(1, 8), (2, 4)])
def test_several_processes_train_together_and_the_first_one_saves(processes, devices):
    ((expected,),) = results('together', 1, 1)
    for rows in results('together', processes, devices):
        assert rows[0][:2] == expected[:2] == ['2', '2']
        assert [float(x) for x in rows[0][2:]] == pytest.approx([float(x) for x in expected[2:]], rel=1e-5)

import shutil

import numpy as np
import pytest
import small_experiment

from rfn_jax import experiment, landscape
from rfn_jax.core import errors, tables

SETTINGS = {
    'examples': 60,
    'batch_size': 32,
    'every_epochs': 3,
    'rho': 0.4,
    'steps': 8,
    'samples': 4,
    'search_steps': 3,
}


@pytest.fixture(scope='module')
def surveyed(finished, tmp_path_factory):
    """A finished work directory whose config has grown by a section, after the stage."""
    directory = tmp_path_factory.mktemp('landscape') / 'run'
    shutil.copytree(finished, directory)
    config = small_experiment.get_config()
    config.landscape = SETTINGS
    small_experiment.run(config, directory, [experiment.landscape])
    return directory, config


def rows_of(directory):
    return tables.read(directory / 'results' / 'landscape.csv', landscape.LandscapeRow)


def test_every_surrogate_and_epoch_has_a_row(surveyed):
    rows = rows_of(surveyed[0])
    expected = [(t, seed, epoch) for t in ('sgd', 'rfn') for seed in (0, 1) for epoch in (3, 4)]
    assert [(row.training, row.seed, row.epoch) for row in rows] == expected
    assert {(row.surrogate, row.rho, row.n) for row in rows} == {('small', 0.4, 60)}
    for row in rows:
        assert row.worst_case_sharpness > row.average_sharpness - 3 * row.average_sharpness_standard_error
        assert 0 < row.gradient_cosine < 1
        assert row.top_eigenvalue > 0


def test_rfn_is_flatter_than_sgd_in_the_ball_that_it_was_trained_in(surveyed):
    last = [row for row in rows_of(surveyed[0]) if row.epoch == 4]
    worst = {t: np.mean([row.worst_case_sharpness for row in last if row.training == t]) for t in ('sgd', 'rfn')}
    assert worst['rfn'] < worst['sgd']


def test_a_second_run_measures_nothing_and_a_lost_file_is_measured_again(surveyed, monkeypatch):
    directory, config = surveyed
    before = (directory / 'results' / 'landscape.csv').read_bytes()
    (directory / 'results' / 'landscape' / 'small-rfn-seed1.json').write_text('{"rows": [')
    (directory / 'results' / 'landscape.csv').unlink()
    small_experiment.run(config, directory, [experiment.landscape])
    assert (directory / 'results' / 'landscape.csv').read_bytes() == before
    monkeypatch.setattr(landscape, 'of_classifier', lambda *args, **kwargs: pytest.fail('measured again'))
    small_experiment.run(config, directory, [experiment.landscape])


def test_a_config_without_the_section_is_refused(copy):
    with pytest.raises(errors.InputError, match='the config has no section landscape; add one, such as'):
        small_experiment.run(small_experiment.get_config(), copy, [experiment.landscape])


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'examples': 0}, 'landscape.examples must be an integer of at least 1, got 0'),
        ({'every_epochs': 0}, 'landscape.every_epochs must be an integer of at least 1, got 0'),
        ({'samples': 1}, 'landscape.samples must be an integer of at least 2, got 1'),
        ({'rho': 0.0}, 'landscape.rho must be a finite number above 0, got 0.0'),
        ({'rhos': 1}, "unknown option of landscape: 'rhos'; did you mean 'rho'"),
    ],
)
def test_wrong_settings(tmp_path, values, message):
    config = small_experiment.get_config()
    config.landscape = values
    with pytest.raises(errors.InputError, match=message):
        small_experiment.opening(config, tmp_path)

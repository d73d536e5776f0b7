"""What is missing or damaged in a work directory is made again by a run, or named with the way out."""

import json
import shutil

import pytest
import small_experiment

from rfn_jax import experiment
from rfn_jax.core import errors


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.glob('results/*.csv')}


def change(directory, changes):
    """Removes files and folders (None), writes a text into them, or applies a function to their text."""
    for pattern, content in changes.items():
        for path in list(directory.glob(pattern)):
            if content is not None:
                path.write_text(content if isinstance(content, str) else content(path.read_text()))
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


@pytest.mark.parametrize(
    'changes',
    [
        {'results/transfer.csv': 'changed', 'results/validation/small-sgd-seed1.json': '{', 'config.json': '{'},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                {'adversarial/small-rfn-seed1': None, 'results/measured.json': None, 'results/transfer.csv': None},
                {'results/summary.csv': None, 'results/measured.json': '5'},
                {'surrogates/small-rfn/seed0/checkpoints/2': None, 'results/validation/small-rfn-seed0.json': None},
            )
        ),
    ],
)
def test_a_run_makes_again_what_was_lost_or_changed(copy, finished, changes):
    change(copy, changes)
    small_experiment.run(small_experiment.get_config(), copy)
    assert contents(copy) == contents(finished)
    assert len(contents(copy)) == 8
    assert experiment.last_config(copy) == experiment.last_config(finished)


def test_an_environment_that_is_missing_or_damaged_is_recorded_again(copy):
    for text in (None, '{', '[]'):
        change(copy, {'environment.json': text})
        experiment.train(*small_experiment.opening(small_experiment.get_config(), copy))
        assert json.loads((copy / 'environment.json').read_text())['devices'].startswith('8 x ')


def reopen(_, workdir):
    small_experiment.opening(small_experiment.get_config(), workdir.directory)


def last_config(_, workdir):
    experiment.last_config(workdir.directory)


def digest(plan, workdir):
    workdir.digest(plan.of_role('target')[0], 4)


def classifier(plan, workdir):
    workdir.classifier(plan.of_role('target')[0], 4, (8, 8, 1))


def other_rate(text):
    return json.dumps({**json.loads(text), 'optim.learning_rate': 0.1})


def other_training(text):
    return text.replace(',sgd,', ',rfn,', 1)


@pytest.mark.parametrize(
    ('changes', 'stages', 'message'),
    [
        ({'layout.json': '{'}, [reopen], r'layout.json is not a JSON file: .*write {"version": 2} into that file; oth'),
        ({'layout.json': None}, [reopen, last_config], 'is a work directory of layout 1, made by another version'),
        ({'layout.json': '{"version": 1}'}, [reopen, last_config], 'of layout 1, made by another version'),
        ({'layout.json': '{"version": 3}'}, [reopen, last_config], 'of layout 3, made by another version'),
        ({'config.json': '{'}, [last_config], r'config\.json is not .*; `rfn-jax run --config=FILE` writes it again'),
        (
            {'targets/mlp/definition.json': '{'},
            [reopen],
            r'definition.json is not a JSON file: .*restore it, or delete .*targets/mlp to train the network again',
        ),
        (
            {'surrogates/small-rfn/seed0/definition.json': None},
            [experiment.train],
            r'small-rfn/seed0 has checkpoints but no definition\.json',
        ),
        *(  # as if another run had made it in the meantime
            (
                {f'{folder}/definition.json': other_rate},
                [experiment.train, experiment.measure],
                r'optim\.learning_rate was 0\.1 and is now 0\.5',
            )
            for folder in ('targets/mlp', 'validation_targets/mlp_deep', 'surrogates/small-rfn/seed0')
        ),
        ({'adversarial': None}, [experiment.measure], 'craft it first'),
        (
            {'results/test_examples.json': None},
            [experiment.measure],
            'holds no test examples for these targets; run rfn-jax craft first',
        ),
        (
            {'results/early_stopping.csv': None},
            [experiment.craft],
            r'early_stopping\.csv is missing; choose .* first \(rfn-jax select\)',
        ),
        *(
            ({f'results/{name}.csv': other_training}, [experiment.measure], f'{name}.csv is missing or does not match')
            for name in ('transfer_validation', 'early_stopping')
        ),
        (
            {'targets/mlp/checkpoints/4/meta/metadata': '[1]'},
            [digest, classifier],
            r'checkpoints/4: .*; to make it again, delete that folder and run rfn',
        ),
        (
            {'adversarial': None, 'surrogates/small-rfn/seed0/checkpoints/4/**/d/*': 'damaged'},
            [experiment.craft],
            r'could not read checkpoint .*small-rfn/seed0/checkpoints/4',
        ),
    ],
)
def test_what_cannot_be_used_is_named_with_the_way_out(copy, changes, stages, message):
    opened = small_experiment.opening(small_experiment.get_config(), copy)
    change(copy, changes)
    for stage in stages:
        with pytest.raises(errors.RunError if 'checkpoints/4' in message else errors.InputError, match=message):
            stage(*opened)

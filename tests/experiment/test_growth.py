"""A work directory grows: what is new is made, what exists is kept, and what would change it is refused."""

import collections
import json
import os
import shutil
import weakref

import numpy as np
import pytest
import small_experiment

from rfn_jax import data, experiment, storage, training, transfer
from rfn_jax.core import errors, locks, rng, tables
from rfn_jax.experiment import crafting, selection
from rfn_jax.experiment import inputs as inputs_lib
from rfn_jax.report import results

opening, run = small_experiment.opening, small_experiment.run


@pytest.fixture
def config():
    return small_experiment.get_config()


@pytest.fixture
def work(monkeypatch):
    """Counts of what is trained and crafted: the steps of each network, and the examples of each adversarial set."""
    steps, crafted = collections.Counter(), []
    fit, craft = training.fit, transfer.craft_images

    def counted_fit(runs, validation, program, **options):
        def step(state, batch, key):
            steps[runs[0].name] += 1
            return program.step(state, batch, key)

        fit(runs, validation, type(program)(**{**vars(program), 'step': step}), **options)

    def counted_craft(attack, surrogate, examples, key, **options):
        if 'finished_batches' in options:
            crafted.append((attack.name, len(examples)))
        return craft(attack, surrogate, examples, key, **options)

    monkeypatch.setattr(training, 'fit', counted_fit)
    monkeypatch.setattr(transfer, 'craft_images', counted_craft)
    return steps, crafted


def times(directory):
    return {path: path.stat().st_mtime_ns for path in directory.rglob('*') if path.is_file()}


def times_of_what_was_made(directory):
    made = [times(directory / name) for name in ('targets', 'validation_targets', 'surrogates', 'adversarial')]
    return dict(collections.ChainMap(*made))


def rows(directory):
    return tables.read(directory / 'results' / 'transfer.csv', transfer.TransferRow)


@pytest.mark.slow
def test_adding_an_attack_a_target_and_a_seed_trains_and_crafts_only_what_is_new(config, copy, work):
    before, old_rows = times_of_what_was_made(copy), rows(copy)
    chosen = tables.read(copy / 'results' / 'early_stopping.csv', transfer.EarlyStoppingRow)
    config.seeds = 3
    config.targets.mlp_wide = {**config.targets.mlp, 'model': {'name': 'mlp', 'widths': (96,)}}
    config.attacks.pgd = {'name': 'pgd', 'eps': 0.2, 'steps': 2}
    run(config, copy)
    steps, crafted = work
    names = ('target mlp wide', 'surrogate small-sgd seed 2', 'surrogate small-rfn seed 2')
    assert steps == {f'train {name}': 4 * 25 for name in names}
    # The new attack on all surrogates, the old ones on those of the new seed; and what the new target made eligible.
    now = times_of_what_was_made(copy)
    stayed = {path for path, time in before.items() if now[path] == time}
    assert {path for path in before if 'adversarial' not in path.parts} <= stayed
    assert {path.name for path in before.keys() - stayed} <= {'adversarial.npz'}
    assert collections.Counter(name for name, _ in crafted)['pgd'] == 3 * 3
    found = rows(copy)
    assert {row.target for row in found} == {'mlp', 'vgg', 'mlp_wide', 'small'}
    assert {(row.attack, row.seed) for row in found} == {(a, s) for a in ('bim', 'mi', 'pgd') for s in range(3)}
    assert len(found) == len(old_rows) * 3 // 2 * 3 // 2 * 4 // 3
    again = tables.read(copy / 'results' / 'early_stopping.csv', transfer.EarlyStoppingRow)
    assert [row.surrogate for row in again] == [row.surrogate for row in chosen]


@pytest.mark.slow
def test_more_examples_are_added_to_the_existing_ones_as_a_new_run_makes_them(config, copy, work):
    path = copy / 'adversarial' / 'small-rfn-seed0' / 'bim'
    before = storage.load_adversarial_set(path)
    config.evaluation.examples = 75
    run(config, copy)
    steps, crafted = work
    assert not steps
    assert {count for _, count in crafted} == {15}
    after = storage.load_adversarial_set(path)
    assert len(after.ids) == 75
    np.testing.assert_array_equal(after.images_for(before.ids), before.images)
    assert {row.n for row in rows(copy)} == {75}

    names = [f'{name}.csv' for name in ('transfer', 'natural', 'summary', 'gains', 'examples')]
    grown = [(copy / 'results' / name).read_bytes() for name in names]
    for name in ('adversarial', 'results'):
        shutil.rmtree(copy / name)
    run(config, copy)
    assert [(copy / 'results' / name).read_bytes() for name in names] == grown


@pytest.mark.slow
def test_a_report_shows_the_config_and_the_choice_that_were_measured(config, copy, monkeypatch):
    measured = []
    successes = transfer.successes
    monkeypatch.setattr(transfer, 'successes', lambda *a, **k: measured.append(a) or successes(*a, **k))
    config.name = 'renamed'
    run(config, copy)
    assert results.read(copy).config['name'] == 'renamed'
    assert measured == []  # the figures are the same
    config.evaluation.examples, config.validation.examples = 30, 40
    opened = opening(config, copy)
    for stage in (experiment.select, experiment.craft):
        stage(*opened)
        with pytest.raises(errors.InputError, match='was measured with a config other than'):
            results.read(copy)
    experiment.measure(*opened)
    found = results.read(copy)
    assert ({row.n for row in found.transfer}, {row.n for row in found.transfer_validation}) == ({30}, {40})
    assert measured


def test_what_is_dropped_leaves_the_tables_and_stays_on_disk(config, copy, work):
    before = times_of_what_was_made(copy)
    del config.attacks['mi'], config.targets['vgg']
    config.baselines = ('sgd',)
    config.early_stopping = {}
    config.evaluation.examples = 30
    run(config, copy)
    steps, crafted = work
    assert not steps
    assert times_of_what_was_made(copy).keys() >= before.keys()
    assert {(row.training, row.attack, row.n) for row in rows(copy)} == {('sgd', 'bim', 30), ('rfn', 'bim', 30)}
    assert all(count <= 30 for _, count in crafted)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c.optim.update(rho=0.1), 'trainings.rfn.rho was 0.4 and is now 0.1'),
        (lambda c: c.optim.update(learning_rate=0.1), 'optim.learning_rate was 0.5 and is now 0.1'),
        (lambda c: c.targets.vgg.model.update(stages=((8,),)), 'targets.vgg.model.stages was [[8], [16]] and is now'),
        (lambda c: c.targets.mlp.optim.update(epochs=5), 'targets.mlp.optim.epochs was 4 and is now 5'),
        (lambda c: c.update(seed=1), 'seed was 0 and is now 1'),
        (lambda c: c.augmentation.update(flip=True), 'augmentation.flip was False and is now True'),
        (lambda c: c.trainings.rfn.update(mask='no_biases'), "trainings.rfn.mask was 'absent' and is now 'no_biases'"),
    ],
)
def test_what_would_change_an_existing_network_is_refused(config, finished, change, message):
    before = times(finished)
    change(config)
    with pytest.raises(errors.InputError, match='choose another --workdir, or another name') as caught:
        opening(config, finished)
    assert message in str(caught.value)
    assert '\n' not in str(caught.value)
    assert times(finished) == before


def test_the_definition_of_a_network_that_was_left_out_still_counts(config, finished):
    vgg = config.targets.vgg.to_dict()
    del config.targets['vgg']
    opening(config, finished)
    config.targets.vgg = {**vgg, 'model': {'name': 'vgg', 'stages': ((8,), (8,))}}
    with pytest.raises(errors.InputError, match=r'targets\.vgg\.model\.stages was'):
        opening(config, finished)


def test_a_network_json_that_was_lost_is_written_again(config, copy, work):
    plan, workdir = opening(config, copy)
    path = copy / 'targets' / 'mlp' / 'network.json'
    whole = path.read_bytes()
    for damage in (None, b'{'):
        path.unlink()
        if damage:
            path.write_bytes(damage)
        with pytest.raises(errors.InputError, match='run rfn-jax train, which writes it again in a work directory'):
            experiment.measure(plan, workdir)
        path.unlink(missing_ok=True)
        experiment.train(plan, workdir)
        assert path.read_bytes() == whole
    assert not work[0]  # nothing was trained for it


def test_a_network_that_another_process_trains_is_left_to_it(config, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(training, 'fit', lambda runs, *_, **__: trained.extend(run.name for run in runs))
    opened = opening(config, tmp_path)
    lock = tmp_path / 'targets' / 'vgg' / 'training.lock'
    with locks.held(lock), pytest.raises(errors.RunError, match=rf'{lock} is held by process {os.getpid()} on host'):
        experiment.train(*opened, ['targets'])
    assert trained == ['train target mlp']
    assert not lock.with_name('definition.json').exists()
    experiment.train(*opened, ['targets/vgg'])
    assert trained == ['train target mlp', 'train target vgg']
    assert not lock.exists()


@pytest.mark.slow
def test_the_training_set_of_one_seed_is_on_the_devices_at_a_time(config, tmp_path, monkeypatch):
    config.seeds = 3
    config.optim.update(epochs=1, decay_epochs=())
    loader, made = data.loader, []

    def watched_loader(*arguments, **options):
        assert all(one() is None for one in made)
        new = loader(*arguments, **options)
        made.append(weakref.ref(new))
        return new

    monkeypatch.setattr(data, 'loader', watched_loader)
    experiment.train(*opening(config, tmp_path), ['surrogates/small-sgd'])
    assert len(made) == 3


def test_a_digest_is_read_once_by_a_stage(config, finished, monkeypatch):
    plan, workdir = opening(config, finished)
    read, found = collections.Counter(), type(workdir).digest

    def counted(self, network, epoch):
        read[network.folder, epoch] += 1
        return found(self, network, epoch)

    monkeypatch.setattr(type(workdir), 'digest', counted)
    inputs = inputs_lib.Inputs(plan, workdir)
    jobs = list(crafting.jobs(inputs, selection.stopping_epochs(inputs)))
    assert len(jobs) == 2 * len({job.directory.parent for job in jobs})
    assert set(read.values()) == {1}
    assert inputs.digest(plan.networks[0], 4) == found(workdir, plan.networks[0], 4)


def test_what_does_not_change_a_network_may_change(config, copy, work):
    for optim in (config.optim, config.targets.vgg.optim):
        optim.steps_per_call = 5
        optim.streaming = True
        optim.seeds_at_once = 2
    config.name = 'renamed'
    config.evaluation.batch_size = 16
    experiment.train(*opening(config, copy))
    assert json.loads((copy / 'config.json').read_text())['name'] == 'renamed'
    assert not work[0]


@pytest.mark.slow
def test_a_network_that_does_not_exist_yet_may_change(config, tmp_path):
    plan, workdir = opening(config, tmp_path)
    (tmp_path / 'targets' / 'mlp' / 'checkpoints').mkdir(parents=True)  # in an empty folder, there is none
    with pytest.raises(errors.InputError, match='target mlp is not trained yet'):
        workdir.digest(plan.of_role('target')[0], 4)
    experiment.train(plan, workdir, ['targets/mlp'])
    workdir.digest(plan.of_role('target')[0], 4)
    before = times_of_what_was_made(tmp_path)
    config.targets.vgg.model = {'name': 'mlp', 'widths': (4,)}
    experiment.train(*opening(config, tmp_path), ['targets'])
    assert storage.read_network(tmp_path / 'targets' / 'vgg').architecture['widths'] == [4]
    assert experiment.last_config(tmp_path)['targets']['vgg']['model']['widths'] == [4]
    assert times_of_what_was_made(tmp_path).items() > before.items()


def not_trained(config):
    config.targets.new = {**config.targets.mlp, 'model': {'name': 'mlp', 'widths': (16,)}}
    config.validation_targets.another = {'model': {'name': 'mlp', 'widths': (8,)}}


@pytest.mark.parametrize(
    ('stage', 'change', 'message'),
    [
        (lambda *opened: experiment.train(*opened, ['targets/mpl']), not_trained, 'unknown network'),
        (experiment.select, not_trained, 'train it first'),
        (experiment.craft, not_trained, 'train it first'),
        (experiment.craft, lambda c: c.validation.update(examples=20), 'choose again'),
        (experiment.measure, not_trained, 'train it first'),
        (experiment.measure, lambda c: c.evaluation.update(examples=75), 'run rfn-jax craft first'),
        (experiment.measure, lambda c: c.attacks.bim.update(steps=4), 'craft it first'),
        (
            experiment.measure,
            lambda c: c.validation.update(examples=20),
            'was made with other networks or other validation settings; choose again',
        ),
    ],
)
def test_a_stage_that_cannot_run_leaves_the_directory_as_it_was(config, finished, stage, change, message):
    before = times(finished)
    change(config)
    with pytest.raises(errors.InputError, match=message):
        stage(*opening(config, finished))
    assert times(finished) == before


@pytest.mark.parametrize(
    ('first', 'other'),
    [('targets/mlp', 'targets/vgg'), ('surrogates/small-sgd/seed0', 'surrogates/small-sgd/seed1')],
)
def test_a_network_that_another_run_makes_while_one_is_trained_is_not_touched(
    config, tmp_path, monkeypatch, first, other
):
    trained = []

    def fit(runs, *_, **__):
        trained.append(str(runs[0].directory.relative_to(tmp_path)))
        path = tmp_path / other / 'definition.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"seed": 7}')

    monkeypatch.setattr(training, 'fit', fit)
    with pytest.raises(errors.InputError, match=f'{other} was made from another config'):
        experiment.train(*opening(config, tmp_path), [first.split('/')[0]])
    assert trained == [first]


@pytest.mark.slow
def test_so_many_seeds_at_once_as_the_config_says_and_locked_together(config, copy, monkeypatch):
    config.seeds = 5  # two of them are trained
    config.optim.seeds_at_once = 2
    groups, fit = [], training.fit

    def recorded(runs, *arguments, **options):
        locked = [(run.directory / 'training.lock').exists() for run in runs]
        groups.append((locked, [(run.directory.name, run.loader.seed) for run in runs]))
        fit(runs, *arguments, **options)

    monkeypatch.setattr(training, 'fit', recorded)
    experiment.train(*opening(config, copy), ['surrogates/small-rfn'])
    seeds = [(f'seed{n}', rng.seed_for(0, f'train surrogate small {n}')) for n in (2, 3, 4)]
    assert groups == [([True, True], seeds[:2]), ([True], seeds[2:])]
    config.optim.seeds_at_once = 4
    experiment.train(*opening(config, copy), ['surrogates/small-rfn'])
    assert len(groups) == 2


def test_networks_of_both_loaders_are_the_same_bits(config, finished, tmp_path):
    config.seeds = 1
    config.optim.streaming = True
    experiment.train(*opening(config, tmp_path), ['surrogates/small-rfn'])
    for epoch in (1, 4):
        checkpoints = [directory / 'surrogates/small-rfn/seed0' for directory in (finished, tmp_path)]
        resident, streamed = (storage.open_checkpoint(path, epoch)[0].digest(epoch) for path in checkpoints)
        assert resident == streamed


@pytest.mark.parametrize(
    ('role', 'folder', 'message'),
    [
        ('targets', 'surrogates/small-sgd/seed0', "target 'x' is the surrogate .*: success on it is white-box"),
        pytest.param(
            'validation_targets', 'targets/mlp', "validation target 'x' is the target 'mlp'", marks=pytest.mark.slow
        ),
    ],
)
def test_a_target_under_another_name_is_refused(config, copy, role, folder, message):
    config[role].x = {'network': str(copy / folder), 'epoch': 4}
    opened = opening(config, copy)
    for stage in small_experiment.STAGES[:-1]:
        stage(*opened)
    with pytest.raises(errors.InputError, match=message):
        experiment.measure(*opened)

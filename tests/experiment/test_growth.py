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
from rfn_jax.core import console, errors, locks, tables
from rfn_jax.experiment import crafting, selection
from rfn_jax.experiment import inputs as inputs_lib
from rfn_jax.report import results


def opening(config, directory):
    return experiment.open_workdir(config.to_dict(), directory, console.Console())


def run(config, directory):
    opened = opening(config, directory)
    for stage in (experiment.train, experiment.select, experiment.craft, experiment.measure):
        stage(*opened)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    config = small_experiment.get_config()
    config.seeds = 1
    directory = tmp_path_factory.mktemp('finished')
    run(config, directory)
    return directory


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / 'copy')
    return tmp_path / 'copy'


@pytest.fixture
def config():
    config = small_experiment.get_config()
    config.seeds = 1
    return config


@pytest.fixture
def work(monkeypatch):
    """Counts of what is trained and crafted: the steps of each network, and the examples of each adversarial set."""
    steps, crafted = collections.Counter(), []
    fit, craft = training.fit, transfer.craft_images

    def counted_fit(classifier, loader, validation, program, *, name, **options):
        def step(state, batch, key):
            steps[name] += 1
            return program.step(state, batch, key)

        fit(classifier, loader, validation, type(program)(**{**vars(program), 'step': step}), name=name, **options)

    def counted_craft(attack, surrogate, examples, key, **options):
        if 'finished_batches' in options:
            crafted.append((attack.name, len(examples)))
        return craft(attack, surrogate, examples, key, **options)

    monkeypatch.setattr(training, 'fit', counted_fit)
    monkeypatch.setattr(transfer, 'craft_images', counted_craft)
    return steps, crafted


def files_of(directory):
    kept = ('targets', 'validation_targets', 'surrogates', 'adversarial')
    return {path: path.stat().st_mtime_ns for name in kept for path in (directory / name).rglob('*') if path.is_file()}


def rows(directory):
    return tables.read(directory / 'results' / 'transfer.csv', transfer.TransferRow)


def test_adding_an_attack_a_target_and_a_seed_trains_and_crafts_only_what_is_new(config, copy, work):
    before, old_rows = files_of(copy), rows(copy)
    chosen = tables.read(copy / 'results' / 'early_stopping.csv', transfer.EarlyStoppingRow)
    config.seeds = 2
    config.targets.mlp_wide = {
        'model': {'name': 'mlp', 'widths': (96,)},
        'optim': {'epochs': 4, 'decay_epochs': (3,)},
    }
    config.attacks.pgd = {'name': 'pgd', 'eps': 0.2, 'steps': 2}
    run(config, copy)
    steps, crafted = work
    assert steps == {
        'train target mlp wide': 4 * 25,
        'train surrogate resnet-sgd seed 1': 4 * 25,
        'train surrogate resnet-rfn seed 1': 4 * 25,
    }
    # The new attack on all surrogates, the old ones on those of the new seed; and what the new target made eligible.
    now = files_of(copy)
    stayed = {path for path, time in before.items() if now[path] == time}
    networks = {path for path in before if 'adversarial' not in path.parts}
    assert networks <= stayed
    assert {path.name for path in before.keys() - stayed} <= {'adversarial.npz'}
    counts = collections.Counter(name for name, _ in crafted)
    assert counts['pgd'] == 2 * 3
    found = rows(copy)
    assert {row.target for row in found} == {'mlp', 'vgg', 'mlp_wide', 'resnet'}
    assert {(row.attack, row.seed) for row in found} == {(a, s) for a in ('bim', 'mi', 'pgd') for s in (0, 1)}
    assert len(found) == len(old_rows) * 2 * 3 // 2 * 4 // 3
    again = tables.read(copy / 'results' / 'early_stopping.csv', transfer.EarlyStoppingRow)
    assert [row.surrogate for row in again] == [row.surrogate for row in chosen]


def test_more_examples_are_added_to_the_existing_ones(config, copy, work):
    path = copy / 'adversarial' / 'resnet-rfn-seed0' / 'bim'
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


def test_what_is_added_is_what_a_new_run_makes(config, copy, tmp_path):
    config.evaluation.examples = 75
    run(config, copy)
    shutil.copytree(copy, tmp_path / 'new')
    for name in ('adversarial', 'results'):
        shutil.rmtree(tmp_path / 'new' / name)
    run(config, tmp_path / 'new')
    for name in ('transfer.csv', 'natural.csv', 'summary.csv', 'gains.csv', 'examples.csv'):
        assert (copy / 'results' / name).read_bytes() == (tmp_path / 'new' / 'results' / name).read_bytes()


def test_a_report_shows_the_config_that_was_measured(config, copy, monkeypatch):
    measured = []
    successes = transfer.successes
    monkeypatch.setattr(transfer, 'successes', lambda *a, **k: measured.append(a) or successes(*a, **k))
    config.name = 'renamed'
    run(config, copy)
    assert results.read(copy).config['name'] == 'renamed'
    assert measured == []  # the figures are the same
    config.evaluation.examples = 30
    opened = opening(config, copy)
    experiment.craft(*opened)
    with pytest.raises(errors.InputError, match='was measured with a config other than'):
        results.read(copy)
    experiment.measure(*opened)
    assert {row.n for row in results.read(copy).transfer} == {30}
    assert measured


def test_a_report_shows_the_choice_that_was_measured_with(config, copy):
    config.validation.examples = 40
    opened = opening(config, copy)
    experiment.select(*opened)
    experiment.craft(*opened)
    with pytest.raises(errors.InputError, match='was measured with a config other than'):
        results.read(copy)
    experiment.measure(*opened)
    assert {row.n for row in results.read(copy).transfer_validation} == {40}


def test_what_is_dropped_leaves_the_tables_and_stays_on_disk(config, copy, work):
    before = files_of(copy)
    del config.attacks['mi'], config.targets['vgg']
    config.baselines = ('sgd',)
    config.early_stopping = {}
    config.evaluation.examples = 30
    run(config, copy)
    steps, crafted = work
    assert not steps
    assert files_of(copy).keys() >= before.keys()
    assert {(row.training, row.attack, row.n) for row in rows(copy)} == {('sgd', 'bim', 30), ('rfn', 'bim', 30)}
    assert all(count <= 30 for _, count in crafted)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c.optim.update(rho=0.1), r'trainings\.rfn\.rho was 0\.4 and is now 0\.1'),
        (lambda c: c.optim.update(learning_rate=0.1), r'optim\.learning_rate was 0\.05 and is now 0\.1'),
        (
            lambda c: c.targets.vgg.model.update(stages=((8,),)),
            r'targets\.vgg\.model\.stages was \[\[8\], \[16\]\] and is now',
        ),
        (lambda c: c.targets.mlp.optim.update(epochs=5), r'targets\.mlp\.optim\.epochs was 4 and is now 5'),
        (lambda c: c.update(seed=1), r'seed was 0 and is now 1'),
        (lambda c: c.augmentation.update(flip=True), r'augmentation\.flip was False and is now True'),
        (
            lambda c: c.trainings.rfn.update(mask='no_biases'),
            r"trainings\.rfn\.mask was 'absent' and is now 'no_biases'",
        ),
    ],
)
def test_what_would_change_an_existing_network_is_refused(config, copy, change, message):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob('*')}
    change(config)
    with pytest.raises(errors.InputError, match=f'{message}.*choose another --workdir, or another name') as caught:
        opening(config, copy)
    assert '\n' not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob('*')} == before


def test_the_definition_of_a_network_that_was_left_out_still_counts(config, copy):
    vgg = config.targets.vgg.to_dict()
    del config.targets['vgg']
    opening(config, copy)
    config.targets.vgg = {**vgg, 'model': {'name': 'vgg', 'stages': ((8,), (8,))}}
    with pytest.raises(errors.InputError, match=r'targets\.vgg\.model\.stages was'):
        opening(config, copy)


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


def test_a_network_that_another_process_trains_is_left_to_it(config, tmp_path, work):
    plan, workdir = opening(config, tmp_path)
    lock = tmp_path / 'surrogates' / 'resnet-rfn' / 'seed0' / 'training.lock'
    with locks.held(lock), pytest.raises(errors.RunError, match=rf'{lock} is held by process {os.getpid()} on host'):
        experiment.train(plan, workdir, ['surrogates'])
    assert work[0].keys() == {'train surrogate resnet-sgd seed 0'}
    assert not lock.with_name('definition.json').exists()
    experiment.train(plan, workdir, ['surrogates'])
    assert not lock.exists()


def test_the_training_set_of_one_seed_is_on_the_devices_at_a_time(config, tmp_path, monkeypatch):
    config.seeds = 3
    loader, made = data.loader, []

    def watched_loader(*arguments, **options):
        assert all(one() is None for one in made)
        new = loader(*arguments, **options)
        made.append(weakref.ref(new))
        return new

    monkeypatch.setattr(data, 'loader', watched_loader)
    plan, workdir = opening(config, tmp_path)
    experiment.train(plan, workdir, ['surrogates/resnet-sgd'])
    assert len(made) == 3


def test_a_digest_is_read_once_by_a_stage(config, copy, monkeypatch):
    plan, workdir = opening(config, copy)
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


def test_a_damaged_checkpoint_names_the_remedy_wherever_it_is_read(config, copy):
    plan, workdir = opening(config, copy)
    (copy / 'targets' / 'mlp' / 'checkpoints' / '4' / 'meta' / 'metadata').write_text('[1]')
    network = next(n for n in plan.of_role('target') if n.model == 'mlp')
    for read in (workdir.digest, lambda *what: workdir.classifier(*what, (8, 8, 1))):
        with pytest.raises(
            errors.RunError, match=r'checkpoints/4: .*; to make it again, delete that folder and run rfn'
        ):
            read(network, 4)


def test_an_empty_folder_of_checkpoints_is_that_of_a_network_that_is_not_trained(config, tmp_path):
    plan, workdir = opening(config, tmp_path)
    (tmp_path / 'targets' / 'mlp' / 'checkpoints').mkdir(parents=True)
    with pytest.raises(errors.InputError, match='target mlp is not trained yet'):
        workdir.digest(plan.of_role('target')[0], 4)
    experiment.train(plan, workdir, ['targets/mlp'])
    workdir.digest(plan.of_role('target')[0], 4)


def test_checkpoints_without_a_definition_are_not_used(config, copy):
    (copy / 'surrogates' / 'resnet-rfn' / 'seed0' / 'definition.json').unlink()
    with pytest.raises(errors.InputError, match=r'resnet-rfn/seed0 has checkpoints but no definition\.json'):
        experiment.train(*opening(config, copy))


def test_what_does_not_change_a_network_may_change(config, copy, work):
    for optim in (config.optim, config.targets.vgg.optim):
        optim.steps_per_call = 5
        optim.streaming = True
    config.name = 'renamed'
    config.evaluation.batch_size = 16
    experiment.train(*opening(config, copy))
    assert json.loads((copy / 'config.json').read_text())['name'] == 'renamed'
    assert not work[0]


def test_a_network_that_does_not_exist_yet_may_change(config, tmp_path):
    plan, workdir = opening(config, tmp_path)
    experiment.train(plan, workdir, ['targets/mlp'])
    before = files_of(tmp_path)
    config.targets.vgg.model.stages = ((4,),)
    experiment.train(*opening(config, tmp_path), ['targets'])
    assert storage.read_network(tmp_path / 'targets' / 'vgg').architecture['stages'] == [[4]]
    assert experiment.last_config(tmp_path)['targets']['vgg']['model']['stages'] == [[4]]
    assert files_of(tmp_path).items() > before.items()


def not_trained(config):
    config.targets.new = {'model': {'name': 'mlp', 'widths': (16,)}, 'optim': {'epochs': 4, 'decay_epochs': (3,)}}
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
    ],
)
def test_a_stage_that_cannot_run_leaves_the_directory_as_it_was(config, copy, stage, change, message):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob('*') if path.is_file()}
    change(config)
    with pytest.raises(errors.InputError, match=message):
        stage(*opening(config, copy))
    assert {path: path.stat().st_mtime_ns for path in copy.rglob('*') if path.is_file()} == before


@pytest.mark.parametrize('role', ['targets/mlp', 'validation_targets/mlp_deep', 'surrogates/resnet-rfn/seed0'])
def test_a_network_that_another_run_has_made_in_the_meantime_is_not_used(config, copy, role):
    opened = opening(config, copy)
    path = copy / role / 'definition.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'optim.learning_rate': 0.1}))
    for stage in (experiment.train, experiment.measure):
        with pytest.raises(errors.InputError, match=r'optim\.learning_rate was 0\.1 and is now 0\.05'):
            stage(*opened)


@pytest.mark.parametrize('other', ['targets/vgg', 'surrogates/resnet-sgd/seed1'])
def test_a_network_that_another_run_makes_while_one_is_trained_is_not_touched(config, tmp_path, monkeypatch, other):
    config.seeds = 2
    trained = []

    def fit(*_, directory, **__):
        trained.append(str(directory.relative_to(tmp_path)))
        path = tmp_path / other / 'definition.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"seed": 7}')

    monkeypatch.setattr(training, 'fit', fit)
    with pytest.raises(errors.InputError, match=f'{other} was made from another config'):
        experiment.train(*opening(config, tmp_path), ['targets', 'surrogates'] if 'vgg' in other else ['surrogates'])
    assert trained == ['targets/mlp' if 'vgg' in other else 'surrogates/resnet-sgd/seed0']


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('layout.json', r'write {"version": 2} into that file; otherwise choose another --workdir'),
        ('targets/mlp/definition.json', r'restore it, or delete .*targets/mlp to train the network again'),
    ],
)
def test_a_damaged_file_is_named_with_the_way_out(config, copy, name, message):
    (copy / name).write_text('{')
    with pytest.raises(errors.InputError, match=f'{name} is not a JSON file: .*{message}'):
        opening(config, copy)


def test_a_damaged_config_is_written_again_by_a_run_that_is_given_it(config, copy, work):
    (copy / 'config.json').write_text('{')
    with pytest.raises(errors.InputError, match=r'config\.json is not .*; `rfn-jax run --config=FILE` writes it again'):
        experiment.last_config(copy)
    run(config, copy)
    assert experiment.last_config(copy)['name'] == config.name
    assert not work[0]


@pytest.mark.parametrize('version', [None, 1, 3])
def test_work_directories_of_another_layout_are_refused(config, copy, version):
    (copy / 'layout.json').unlink()
    if version:
        (copy / 'layout.json').write_text(json.dumps({'version': version}))
    with pytest.raises(
        errors.InputError, match=f'is a work directory of layout {version or 1}, made by another version'
    ):
        opening(config, copy)
    with pytest.raises(errors.InputError, match='of layout'):
        experiment.last_config(copy)


def test_networks_of_both_loaders_are_the_same_bits(config, copy, tmp_path):
    config.optim.streaming = True
    plan, workdir = opening(config, tmp_path / 'streamed')
    experiment.train(plan, workdir, ['surrogates'])
    assert data.SOURCES.make('digits').train.source == 'digits'
    for training_name in ('sgd', 'rfn'):
        folder = f'surrogates/resnet-{training_name}/seed0'
        for epoch in (1, 4):
            found = []
            for directory in (copy, tmp_path / 'streamed'):
                store, _ = storage.open_checkpoint(directory / folder, epoch)
                found.append(store.digest(epoch))
            assert found[0] == found[1]


def test_epochs_that_were_chosen_with_other_settings_are_not_used(config, copy):
    config.validation.examples = 20
    with pytest.raises(
        errors.InputError, match='was made with other networks or other validation settings; choose again'
    ):
        experiment.measure(*opening(config, copy))


@pytest.mark.parametrize(
    ('role', 'folder', 'message'),
    [
        ('targets', 'surrogates/resnet-sgd/seed0', "target 'x' is the surrogate .*: success on it is white-box"),
        ('validation_targets', 'targets/mlp', "validation target 'x' is the target 'mlp'"),
    ],
)
def test_a_target_under_another_name_is_refused(config, copy, role, folder, message):
    config[role].x = {'network': str(copy / folder), 'epoch': 4}
    plan, workdir = opening(config, copy)
    for stage in (experiment.train, experiment.select, experiment.craft):
        stage(plan, workdir)
    with pytest.raises(errors.InputError, match=message):
        experiment.measure(plan, workdir)

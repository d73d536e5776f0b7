import json
import shutil

import jax
import numpy as np
import pytest
import small_experiment

import rfn_jax
from rfn_jax import experiment, models, storage, transfer
from rfn_jax.core import errors, rng, tables
from rfn_jax.experiment import inputs as inputs_lib
from rfn_jax.experiment import networks, pinning

MLP = {'name': 'mlp', 'widths': [16]}
RESNET = {'name': 'resnet', 'stage_sizes': [1], 'widths': [8]}
VIT = {'name': 'vit', 'patch_size': 4, 'width': 8, 'depth': 1, 'heads': 2, 'mlp_width': 8}

opening = small_experiment.opening


def save(directory, spec, seed=0, num_classes=10, shape=(8, 8, 1), mean=(0.5,)):
    module = models.MODELS.make_from(spec, num_classes=num_classes)
    key = rng.key_for(seed, 'initialize')
    classifier = models.initialize(module, key, shape, num_classes=num_classes, mean=mean, std=(0.5,))
    origin = {'naming': 'pytorch_cifar'}
    storage.save_network(directory, classifier, architecture=spec, image_shape=shape, origin=origin)


def sha256(directory):
    network = storage.read_network(directory)
    return network.sha256(network.variables_sha256)


def assert_same_variables(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found.variables, expected.variables)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A folder of networks, for reading only."""
    root = tmp_path_factory.mktemp('saved')
    save(root / 'mlp', MLP)
    save(root / 'same', MLP)
    save(root / 'other', MLP, seed=1)
    save(root / 'resnet', RESNET)
    save(root / 'seven', MLP, num_classes=7)
    save(root / 'vit', VIT, shape=(16, 16, 1))
    return root


@pytest.fixture
def config():
    """One training of one epoch, and networks that compile quickly."""
    config = small_experiment.get_config().to_dict()
    config['seeds'] = 1
    config['optim'] |= {'epochs': 1, 'decay_epochs': ()}
    config['trainings'] = {'sgd': {'name': 'sgd'}}
    config['attacks'] = {'bim': config['attacks']['bim']}
    config['early_stopping'] = {}
    config['baselines'] = ['sgd']
    config['surrogates'] = {'small': MLP}
    config['targets'] = {'mlp': {'model': MLP}}
    config['validation_targets'] = {'mlp_deep': {'model': {'name': 'mlp', 'widths': [8, 8]}}}
    return config


def test_imported_targets_are_measured_and_surrogates_start_from_imported_weights(config, saved, tmp_path, capsys):
    config['targets']['imported'] = {'network': str(saved / 'mlp')}
    config['surrogates'] = {'resnet': {'network': str(saved / 'resnet')}}
    plan, workdir = opening(config, tmp_path)
    experiment.train(plan, workdir)
    inputs = inputs_lib.Inputs(plan, workdir)
    assert_same_variables(inputs.targets['imported'], rfn_jax.load(saved / 'mlp'))
    assert inputs.targets['imported'].mean == (0.5,)
    surrogate = plan.of_role('surrogate')[0]
    initial = networks._initial_classifier(surrogate, inputs)
    assert initial.mean == inputs.classifier(surrogate, 1).mean == (0.5,)
    assert_same_variables(initial, rfn_jax.load(saved / 'resnet'))
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith('target imported: ')]
    assert printed[0].startswith(f'target imported: {saved / "mlp"}, validation_accuracy ')
    assert 'that is near chance; were its weights trained with mean (0.5,)' in printed[1]
    experiment.train(plan, workdir)
    assert 'imported' not in capsys.readouterr().out
    for stage in small_experiment.STAGES[1:]:
        stage(plan, workdir)
    natural = tables.read(tmp_path / 'results' / 'natural.csv', transfer.NaturalRow)
    found = {(row.model, row.role, row.training, row.seed, row.epoch) for row in natural}
    assert ('imported', 'target', 'imported', 0, 0) in found
    folder = tmp_path / 'surrogates' / 'resnet-sgd' / 'seed0'
    assert_same_variables(rfn_jax.load(folder), inputs.classifier(surrogate, 1))
    about = storage.read_network(folder)
    assert (about.architecture, about.mean, about.image_shape) == (RESNET, (0.5,), (8, 8, 1))
    assert about.class_names == tuple('0123456789')
    assert about.origin['naming'] == 'pytorch_cifar'  # of the weights that its training started from


def test_the_contents_of_an_imported_network_are_part_of_the_definition_and_its_location_is_not(config, tmp_path):
    work = tmp_path / 'work'
    save(tmp_path / 'mlp', MLP)
    config['targets'] = {'imported': {'network': str(tmp_path / 'mlp')}}
    experiment.train(*opening(config, work), ['targets'])
    bound = json.loads((work / 'config.json').read_text())
    assert bound['targets']['imported']['sha256'] == sha256(tmp_path / 'mlp')
    opening(config, work)
    opening(bound, work)
    (tmp_path / 'mlp').rename(tmp_path / 'old')
    config['targets']['imported']['network'] = str(tmp_path / 'old')
    opening(config, work)
    config['targets']['imported']['network'] = str(tmp_path / 'mlp')
    save(tmp_path / 'mlp', MLP, mean=(0.4,))
    with pytest.raises(errors.InputError, match=r'targets\.imported\.sha256 was .* and is now'):
        opening(config, work)
    with pytest.raises(errors.InputError, match=r'targets\.imported\.sha256 is .* imported or trained again'):
        opening(bound, work)


@pytest.mark.slow
def test_every_stage_checks_that_an_imported_network_is_unchanged(copy, saved):
    config = small_experiment.get_config()
    config.validation_targets.imported = {'network': str(saved / 'mlp')}
    opened = opening(config, copy)
    path = copy / 'validation_targets' / 'imported' / 'definition.json'
    for stage in small_experiment.STAGES[1:]:
        path.unlink(missing_ok=True)
        stage(*opened)
        assert json.loads(path.read_text()) == {'validation_targets.imported.sha256': sha256(saved / 'mlp')}
    config.validation_targets.imported.network = str(saved / 'other')
    with pytest.raises(errors.InputError, match=r'validation_targets\.imported\.sha256 was .* and is now'):
        opening(config, copy)


@pytest.mark.parametrize('role', ['targets', 'surrogates'])
def test_an_incomplete_copy_of_a_network_is_reported_when_the_experiment_opens(config, saved, tmp_path, role):
    config[role] = {'imported': {'network': str(tmp_path / 'mlp')}}
    for lost in (None, 'variables', 'd', 'meta'):
        shutil.rmtree(tmp_path / 'mlp', ignore_errors=True)
        shutil.copytree(saved / 'mlp', tmp_path / 'mlp')
        if lost is None:
            opening(config, tmp_path / 'work')
            continue
        for path in list((tmp_path / 'mlp' / 'checkpoints').rglob(lost)):
            shutil.rmtree(path)
        with pytest.raises(
            errors.RunError, match=r'imported.*: could not read .*; make that network again, or name another'
        ) as e:
            opening(config, tmp_path / 'work')
        assert '\n' not in str(e.value)
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
    ('entries', 'message'),
    [
        ({'targets': {'network': 'nothing'}}, 'nothing is not a network directory'),
        ({'targets': {'network': 'mlp', 'sha256': 'abc'}}, "targets.x.sha256 is 'abc', but the network in"),
        ({'targets': {'network': 'mlp', 'optim': {}}}, "unknown option of target 'x': 'optim'"),
        ({'targets': {'network': 'mlp', 'model': MLP}}, "unknown option of target 'x': 'model'"),
        ({'targets': {'network': 'seven'}}, 'target x: the network in .* has 7 classes, but the data have 10'),
        ({'targets': {'network': 'vit'}}, r'made for images of shape \(16, 16, 1\), and does not accept images'),
        (
            {'targets': {'network': 'mlp'}, 'validation_targets': {'network': 'same'}},
            "validation target 'y' is the target 'x'",
        ),
    ],
)
def test_a_bad_entry_is_reported_before_anything_runs(config, saved, tmp_path, entries, message):
    for role, entry in entries.items():
        config[role]['x' if role == 'targets' else 'y'] = {**entry, 'network': str(saved / entry['network'])}
    with pytest.raises(errors.InputError, match=message):
        opening(config, tmp_path / 'work')
    assert not (tmp_path / 'work').exists()


@pytest.mark.slow
def test_a_network_of_another_work_directory_is_a_target_and_a_start(config, finished, tmp_path):
    network = str(finished / 'surrogates' / 'small-sgd' / 'seed0')
    config['targets'] = {'other': {'network': network, 'epoch': 1}}
    config['surrogates'] = {'again': {'network': network}}
    plan, workdir = opening(config, tmp_path / 'second')
    experiment.train(plan, workdir, ['targets', 'surrogates/again-sgd'])
    inputs = inputs_lib.Inputs(plan, workdir)
    assert_same_variables(inputs.targets['other'], storage.load(network, 1))
    surrogate = plan.of_role('surrogate')[0]
    assert surrogate.start.epoch == 4
    assert_same_variables(networks._initial_classifier(surrogate, inputs), rfn_jax.load(network))
    config['targets']['other']['epoch'] = 7
    with pytest.raises(errors.InputError, match=r'has no checkpoint of epoch 7, only of \[1, 2, 3, 4\]'):
        opening(config, tmp_path / 'third')


def test_a_relative_path_holds_in_another_directory(config, saved, monkeypatch):
    config['targets']['imported'] = {'network': 'mlp'}
    monkeypatch.chdir(saved)
    made = pinning.pinned(config)
    monkeypatch.chdir('/')
    assert pinning.pinned(made) == made


@pytest.mark.slow
def test_surrogates_that_start_from_different_networks_keep_their_own_normalization(config, tmp_path):
    for name, mean in (('one', 0.2), ('two', 0.7)):
        save(tmp_path / name, MLP, mean=(mean,))
    surrogates = {name: {'network': str(tmp_path / name)} for name in ('one', 'two')}
    for directory, names in (('work', ('one', 'two')), ('alone', ('two',))):
        config['surrogates'] = {name: surrogates[name] for name in names}
        experiment.train(*opening(config, tmp_path / directory), ['surrogates'])
    two = 'surrogates/two-sgd/seed0'
    assert storage.read_network(tmp_path / 'work' / two).mean == (0.7,)
    assert_same_variables(*(rfn_jax.load(tmp_path / directory / two) for directory in ('work', 'alone')))


def test_surrogates_can_be_attacked_as_they_are_without_any_training(config, saved, tmp_path):
    as_is = {'network': str(saved / 'resnet'), 'as_is': True}
    shortest = {key: config[key] for key in ('name', 'seed', 'data', 'attacks', 'evaluation')}
    shortest |= {'surrogates': {'resnet': as_is}, 'targets': {'mlp': {'network': str(saved / 'mlp')}}}
    small_experiment.run(shortest, tmp_path / 'alone')
    rows = tables.read(tmp_path / 'alone' / 'results' / 'transfer.csv', transfer.TransferRow)
    assert [(row.training, row.seed, row.epoch, row.target, row.kind) for row in rows] == [
        ('imported', 0, 0, 'mlp', 'black-box'),
        ('imported', 0, 0, 'resnet', 'white-box'),
    ]
    config['surrogates']['published'] = as_is
    plan, _ = opening(config, tmp_path / 'beside_a_trained_one')
    described = [(network.model, network.training, network.folder) for network in plan.of_role('surrogate')]
    assert described == [
        ('small', 'sgd', 'surrogates/small-sgd/seed0'),
        ('published', 'imported', 'surrogates/published-imported/seed0'),
    ]
    assert [network.model for network in plan.trained_surrogates()] == ['small']


@pytest.mark.parametrize('section', ['trainings', 'validation_targets'])
def test_what_only_trained_surrogates_need_may_be_left_out_only_without_them(section, config, tmp_path):
    config[section] = {}
    with pytest.raises(errors.InputError, match=f'{section} must have at least one entry'):
        opening(config, tmp_path)

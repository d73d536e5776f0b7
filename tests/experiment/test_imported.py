import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import small_experiment

import rfn_jax
from rfn_jax import experiment, models, storage, transfer
from rfn_jax.core import console, errors, rng, tables
from rfn_jax.experiment import inputs as inputs_lib
from rfn_jax.experiment import networks, pinning

MLP = {'name': 'mlp', 'widths': [16]}
RESNET = {'name': 'resnet', 'stage_sizes': [1], 'widths': [8]}
SHAPE = (8, 8, 1)


def save(directory, spec, seed=0, num_classes=10, shape=SHAPE, mean=(0.5,)):
    module = models.MODELS.make_from(spec, num_classes=num_classes)
    key = rng.key_for(seed, 'initialize')
    classifier = models.initialize(module, key, shape, num_classes=num_classes, mean=mean, std=(0.5,))
    origin = {'naming': 'pytorch_cifar'}
    storage.save_network(directory, classifier, architecture=spec, image_shape=shape, origin=origin)
    return classifier


def opening(config, directory):
    return experiment.open_workdir(config, directory, console.Console())


def sha256(directory):
    network = storage.read_network(directory)
    return network.sha256(network.variables_sha256)


@pytest.fixture
def config():
    config = small_experiment.get_config().to_dict()
    config['seeds'] = 1
    config['optim'] |= {'epochs': 1, 'decay_epochs': ()}
    config['attacks'] = {'bim': config['attacks']['bim']}
    config['early_stopping'] = {}
    config['baselines'] = ['sgd']
    for targets in ('targets', 'validation_targets'):
        for target in config[targets].values():
            target['optim'] = {}
    return config


def test_imported_targets_are_measured_and_surrogates_start_from_imported_weights(config, tmp_path, capsys):
    saved = save(tmp_path / 'mlp', MLP)
    start = save(tmp_path / 'resnet', RESNET)
    del config['targets']['vgg']
    config['targets']['imported'] = {'network': str(tmp_path / 'mlp')}
    config['surrogates'] = {'resnet': {'network': str(tmp_path / 'resnet')}}
    plan, workdir = opening(config, tmp_path / 'work')
    experiment.train(plan, workdir)
    inputs = inputs_lib.Inputs(plan, workdir)
    jax.tree.map(np.testing.assert_array_equal, inputs.targets['imported'].variables, saved.variables)
    assert inputs.targets['imported'].mean == (0.5,)
    surrogate = plan.of_role('surrogate')[0]
    initial = networks._initial_classifier(surrogate, inputs)
    assert initial.mean == inputs.classifier(surrogate, 1).mean == (0.5,)
    jax.tree.map(np.testing.assert_array_equal, initial.variables, start.variables)
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith('target imported: ')]
    assert printed[0].startswith(f'target imported: {tmp_path / "mlp"}, validation_accuracy ')
    assert 'that is near chance; were its weights trained with mean (0.5,)' in printed[1]
    experiment.train(plan, workdir)
    assert 'imported' not in capsys.readouterr().out
    for stage in (experiment.select, experiment.craft, experiment.measure):
        stage(plan, workdir)
    natural = tables.read(tmp_path / 'work' / 'results' / 'natural.csv', transfer.NaturalRow)
    assert ('imported', 'target', 'imported', 0, 0) in {
        (row.model, row.role, row.training, row.seed, row.epoch) for row in natural
    }
    folder = tmp_path / 'work' / 'surrogates' / 'resnet-sgd' / 'seed0'
    jax.tree.map(
        np.testing.assert_array_equal, rfn_jax.load(folder).variables, inputs.classifier(surrogate, 1).variables
    )
    about = storage.read_network(folder)
    assert (about.architecture, about.mean, about.image_shape) == (RESNET, (0.5,), (8, 8, 1))
    assert about.class_names == tuple('0123456789')
    assert about.origin['naming'] == 'pytorch_cifar'  # of the weights that its training started from

    bound = json.loads((tmp_path / 'work' / 'config.json').read_text())
    assert bound['targets']['imported']['sha256'] == sha256(tmp_path / 'mlp')
    opening(config, tmp_path / 'work')
    opening(bound, tmp_path / 'work')
    (tmp_path / 'mlp').rename(tmp_path / 'old')
    config['targets']['imported']['network'] = str(tmp_path / 'old')  # the location is not part of the definition
    opening(config, tmp_path / 'work')
    config['targets']['imported']['network'] = str(tmp_path / 'mlp')
    save(tmp_path / 'mlp', MLP, mean=(0.4,))
    with pytest.raises(errors.InputError, match=r'targets\.imported\.sha256 was .* and is now'):
        opening(config, tmp_path / 'work')
    with pytest.raises(errors.InputError, match=r'targets\.imported\.sha256 is .* imported or trained again'):
        opening(bound, tmp_path / 'work')


def test_the_data_must_match(config, tmp_path):
    save(tmp_path / 'seven', MLP, num_classes=7)
    config['targets']['imported'] = {'network': str(tmp_path / 'seven')}
    with pytest.raises(
        errors.InputError, match=r'target imported: the network in .* has 7 classes, but the data have 10'
    ):
        opening(config, tmp_path / 'work')
    assert not pathlib.Path(tmp_path / 'work').exists()


def test_every_stage_checks_that_an_imported_network_is_unchanged(config, tmp_path):
    save(tmp_path / 'mlp', MLP)
    save(tmp_path / 'other', MLP, seed=1)
    config['validation_targets'] = {'imported': {'network': str(tmp_path / 'mlp')}}
    opened = opening(config, tmp_path / 'work')
    experiment.train(*opened, ['targets', 'surrogates'])
    path = tmp_path / 'work' / 'validation_targets' / 'imported' / 'definition.json'
    for stage in (experiment.select, experiment.craft, experiment.measure):
        path.unlink(missing_ok=True)
        stage(*opened)
        assert json.loads(path.read_text()) == {'validation_targets.imported.sha256': sha256(tmp_path / 'mlp')}
    config['validation_targets']['imported']['network'] = str(tmp_path / 'other')
    with pytest.raises(errors.InputError, match=r'validation_targets\.imported\.sha256 was .* and is now'):
        opening(config, tmp_path / 'work')


@pytest.mark.parametrize('lost', ['variables', 'd', 'meta'])
@pytest.mark.parametrize('role', ['targets', 'surrogates'])
def test_an_incomplete_copy_of_a_network_is_reported_when_the_experiment_opens(config, tmp_path, role, lost):
    save(tmp_path / 'mlp', MLP)
    config[role]['imported'] = {'network': str(tmp_path / 'mlp')}
    opening(config, tmp_path / 'work')
    for path in list((tmp_path / 'mlp' / 'checkpoints').rglob(lost)):
        shutil.rmtree(path)
    with pytest.raises(
        errors.RunError, match=r'imported.*: could not read .*; make that network again, or name another'
    ) as e:
        opening(config, tmp_path / 'work')
    assert '\n' not in str(e.value)
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ({'network': '{}/nothing'}, 'nothing is not a network directory'),
        ({'network': '{}/mlp', 'sha256': 'abc'}, "targets.imported.sha256 is 'abc', but the network in"),
        ({'network': '{}/mlp', 'optim': {}}, "unknown option of target 'imported': 'optim'"),
        ({'network': '{}/mlp', 'model': MLP}, "unknown option of target 'imported': 'model'"),
    ],
)
def test_bad_entries(config, tmp_path, entry, message):
    save(tmp_path / 'mlp', MLP)
    config['targets']['imported'] = {**entry, 'network': entry['network'].format(tmp_path)}
    with pytest.raises(errors.InputError, match=message):
        experiment.read(pinning.pinned(config))


def test_a_validation_target_with_the_weights_of_a_target_is_refused(config, tmp_path):
    save(tmp_path / 'one', MLP)
    save(tmp_path / 'two', MLP)
    config['targets']['imported'] = {'network': str(tmp_path / 'one')}
    config['validation_targets']['other'] = {'network': str(tmp_path / 'two')}
    with pytest.raises(errors.InputError, match="validation target 'other' is the target 'imported'"):
        opening(config, tmp_path / 'work')
    assert not (tmp_path / 'work').exists()


def test_a_network_of_another_work_directory_is_a_target_and_a_start(config, tmp_path):
    first = tmp_path / 'first'
    experiment.train(*opening(config, first))
    network = first / 'surrogates' / 'resnet-sgd' / 'seed0'
    config['targets'] = {'other': {'network': str(network), 'epoch': 1}}
    config['surrogates'] = {'resnet': {'network': str(network)}}
    plan, workdir = opening(config, tmp_path / 'second')
    experiment.train(plan, workdir, ['targets', 'surrogates/resnet-sgd'])
    inputs = inputs_lib.Inputs(plan, workdir)
    jax.tree.map(np.testing.assert_array_equal, inputs.targets['other'].variables, rfn_jax.load(network).variables)
    assert plan.of_role('surrogate')[0].start.epoch == 1
    config['targets']['other']['epoch'] = 7
    with pytest.raises(errors.InputError, match=r'has no checkpoint of epoch 7, only of \[1\]'):
        opening(config, tmp_path / 'third')


def test_a_relative_path_holds_in_another_directory(config, tmp_path, monkeypatch):
    save(tmp_path / 'mlp', MLP)
    config['targets']['imported'] = {'network': 'mlp'}
    monkeypatch.chdir(tmp_path)
    made = pinning.pinned(config)
    monkeypatch.chdir('/')
    assert pinning.pinned(made) == made


def test_a_network_for_other_images_is_reported_before_anything_runs(config, tmp_path):
    vit = {'name': 'vit', 'patch_size': 4, 'width': 8, 'depth': 1, 'heads': 2, 'mlp_width': 8}
    save(tmp_path / 'vit', vit, shape=(16, 16, 1))
    config['targets']['imported'] = {'network': str(tmp_path / 'vit')}
    with pytest.raises(
        errors.InputError, match=r'was made for images of shape \(16, 16, 1\), and does not accept images'
    ):
        opening(config, tmp_path / 'work')
    assert not (tmp_path / 'work').exists()


def test_surrogates_that_start_from_different_networks_keep_their_own_normalization(config, tmp_path):
    for name, mean in (('one', 0.2), ('two', 0.7)):
        save(tmp_path / name, MLP, mean=(mean,))
    config['surrogates'] = {name: {'network': str(tmp_path / name)} for name in ('one', 'two')}
    config['trainings'] = {'sgd': {'name': 'sgd'}}
    plan, workdir = opening(config, tmp_path / 'work')
    experiment.train(plan, workdir, ['surrogates'])
    alone, other = opening({**config, 'surrogates': {'two': config['surrogates']['two']}}, tmp_path / 'alone')
    experiment.train(alone, other, ['surrogates'])
    two = 'surrogates/two-sgd/seed0'
    assert storage.read_network(tmp_path / 'work' / two).mean == (0.7,)
    found = [rfn_jax.load(tmp_path / directory / two).variables for directory in ('work', 'alone')]
    jax.tree.map(np.testing.assert_array_equal, *found)

import json
import pathlib

import jax
import numpy as np
import pytest
import small_experiment

from rfn_jax import experiment, models, training
from rfn_jax.core import console, errors, files, rng
from rfn_jax.experiment import plan

MLP = {'name': 'mlp', 'widths': [16]}
RESNET = {'name': 'resnet', 'stage_sizes': [1], 'widths': [8]}
SHAPE = (8, 8, 1)


def save(directory, spec, seed=0, num_classes=10, shape=SHAPE, mean=(0.5,)):
    module = models.MODELS.make_from(spec, num_classes=num_classes)
    key = rng.key_for(seed, 'initialise')
    classifier = models.initialise(module, key, shape, num_classes=num_classes, mean=mean, std=(0.5,))
    training.save_weights(directory, classifier, model=spec, image_shape=shape, origin={'naming': 'pytorch_cifar'})
    return classifier


@pytest.fixture
def config():
    config = small_experiment.get_config().to_dict()
    config['seeds'] = 1
    config['optim'] |= {'epochs': 1, 'decay_epochs': ()}
    config['attacks'] = {'bim': config['attacks']['bim']}
    config['early_stopping'] = {}
    for targets in ('targets', 'validation_targets'):
        for target in config[targets].values():
            target['optim'] = {}
    return config


def test_imported_targets_are_measured_and_surrogates_start_from_imported_weights(config, tmp_path, capsys):
    saved = save(tmp_path / 'mlp', MLP)
    start = save(tmp_path / 'resnet', RESNET)
    del config['targets']['vgg']
    config['targets']['imported'] = {'weights': str(tmp_path / 'mlp')}
    config['surrogates'] = {'resnet': {'weights': str(tmp_path / 'resnet')}}
    ctx = experiment.open_workdir(config, tmp_path / 'work', console.Console())
    experiment.train(ctx)
    jax.tree.map(np.testing.assert_array_equal, ctx.targets['imported'].variables, saved.variables)
    assert ctx.targets['imported'].mean == (0.5,)
    surrogate = ctx.plan.of_role('surrogate')[0]
    assert ctx.fresh(surrogate).mean == ctx.trained(surrogate, 1).mean == (0.5,)
    jax.tree.map(np.testing.assert_array_equal, ctx.fresh(surrogate).variables, start.variables)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith('target imported: ')]
    assert [line.split(', ')[-1][:20] for line in told[:1]] == ['validation_accuracy ']
    assert 'that is near chance; are mean (0.5,)' in told[1]
    experiment.train(ctx)
    assert 'imported' not in capsys.readouterr().out
    experiment.craft(ctx)
    experiment.measure(ctx)
    natural = files.read_csv(tmp_path / 'work' / 'results' / 'natural.csv')
    assert ('imported', 'target', 'imported', '0', '0') in {
        tuple(row[c] for c in ('model', 'role', 'training', 'seed', 'epoch')) for row in natural
    }
    classifier, about = experiment.saved_classifier(tmp_path / 'work' / 'surrogates' / 'resnet-sgd' / 'seed0')
    jax.tree.map(np.testing.assert_array_equal, classifier.variables, ctx.trained(surrogate, 1).variables)
    assert (about['model'], about['epoch'], about['mean'], about['image_shape']) == (RESNET, 1, [0.5], [8, 8, 1])
    assert about['naming'] == 'pytorch_cifar'  # of the weights that its training started from

    bound = json.loads((tmp_path / 'work' / 'config.json').read_text())
    assert bound['targets']['imported']['sha256'] == training.read_weights(tmp_path / 'mlp').sha256
    experiment.open_workdir(config, tmp_path / 'work', console.Console())
    experiment.open_workdir(bound, tmp_path / 'work', console.Console())
    (tmp_path / 'mlp').rename(tmp_path / 'old')
    config['targets']['imported']['weights'] = str(tmp_path / 'old')  # where they lie is not bound
    experiment.open_workdir(config, tmp_path / 'work', console.Console())
    config['targets']['imported']['weights'] = str(tmp_path / 'mlp')
    save(tmp_path / 'mlp', MLP, mean=(0.4,))
    with pytest.raises(errors.InputError, match=r'targets\.imported\.sha256 is .* there and'):
        experiment.open_workdir(config, tmp_path / 'work', console.Console())
    with pytest.raises(errors.InputError, match=r'targets\.imported\.sha256 is .* imported again'):
        experiment.open_workdir(bound, tmp_path / 'work', console.Console())


def test_the_data_must_fit(config, tmp_path):
    save(tmp_path / 'seven', MLP, num_classes=7)
    config['targets']['imported'] = {'weights': str(tmp_path / 'seven')}
    with pytest.raises(errors.InputError, match=r'target imported: the weights in .* have 7 classes, and the data 10'):
        experiment.open_workdir(config, tmp_path / 'work', console.Console())
    assert not pathlib.Path(tmp_path / 'work').exists()


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ({'weights': '{}/nothing'}, 'nothing holds no imported weights'),
        ({'weights': '{}/mlp', 'sha256': 'abc'}, "targets.imported.sha256 is 'abc', and the weights in"),
        ({'weights': '{}/mlp', 'optim': {}}, "unknown option of target 'imported': 'optim'"),
        ({'weights': '{}/mlp', 'model': MLP}, "unknown option of target 'imported': 'model'"),
    ],
)
def test_bad_entries(config, tmp_path, entry, message):
    save(tmp_path / 'mlp', MLP)
    config['targets']['imported'] = {**entry, 'weights': entry['weights'].format(tmp_path)}
    with pytest.raises(errors.InputError, match=message):
        plan.read(config)


def test_a_validation_target_with_the_weights_of_a_target_is_refused(config, tmp_path):
    save(tmp_path / 'one', MLP)
    save(tmp_path / 'two', MLP)
    config['targets']['imported'] = {'weights': str(tmp_path / 'one')}
    config['validation_targets']['other'] = {'weights': str(tmp_path / 'two')}
    with pytest.raises(errors.InputError, match="validation target 'other' is the target 'imported'"):
        plan.read(config)


def test_networks_are_found_by_their_folder(tmp_path):
    saved = save(tmp_path / 'mlp', MLP)
    classifier, about = experiment.saved_classifier(tmp_path / 'mlp')
    jax.tree.map(np.testing.assert_array_equal, classifier.variables, saved.variables)
    assert about == {
        'model': MLP, 'num_classes': 10, 'image_shape': [8, 8, 1], 'mean': [0.5], 'std': [0.5], 'epoch': 0,
        'naming': 'pytorch_cifar',
    }  # fmt: skip
    with pytest.raises(errors.InputError, match='holds imported weights, which have no epochs, got epoch 3'):
        experiment.saved_classifier(tmp_path / 'mlp', 3)
    with pytest.raises(errors.InputError, match='is neither imported weights nor a network of a work directory'):
        experiment.saved_classifier(tmp_path)


def test_a_relative_path_holds_in_another_directory(config, tmp_path, monkeypatch):
    save(tmp_path / 'mlp', MLP)
    config['targets']['imported'] = {'weights': 'mlp'}
    monkeypatch.chdir(tmp_path)
    made = plan.read(config)
    monkeypatch.chdir('/')
    assert plan.read(made.config).config == made.config


def test_what_does_not_fit_the_images_is_told_before_anything_runs(config, tmp_path):
    vit = {'name': 'vit', 'patch_size': 4, 'width': 8, 'depth': 1, 'heads': 2, 'mlp_width': 8}
    save(tmp_path / 'vit', vit, shape=(16, 16, 1))
    config['targets']['imported'] = {'weights': str(tmp_path / 'vit')}
    with pytest.raises(errors.InputError, match=r'were made for images of shape \(16, 16, 1\), and do not fit'):
        experiment.open_workdir(config, tmp_path / 'work', console.Console())
    assert not (tmp_path / 'work').exists()

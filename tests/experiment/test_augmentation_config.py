"""The augmentation section of a config, from the file to the batches that a network is trained on."""

import numpy as np
import pytest
import small_experiment

from rfn_jax import data, experiment, training
from rfn_jax.configs import cifar10, digits
from rfn_jax.core import console, errors
from rfn_jax.experiment import pinning, reading


def read(config):
    return reading.read(pinning.pinned(config.to_dict()))


def definitions(config):
    return {network.folder: network.definition for network in read(config).networks}


@pytest.mark.parametrize('module', [digits, cifar10])
def test_everything_is_off_by_default_and_the_options_may_be_missing(module):
    config, short = module.get_config(), module.get_config()
    for name in ('random_resized_crop', 'rand_augment', 'mixup', 'cutmix'):
        del short.augmentation[name]
    del short.optim['label_smoothing']
    recipe = read(config).networks[0].recipe
    assert recipe == read(short).networks[0].recipe
    assert (recipe.augmentation.on_host(), recipe.augmentation.mixing(2), recipe.label_smoothing) == (None, None, 0)
    # A work directory made before these options existed goes on.
    assert definitions(config) == definitions(short)
    assert not any('mixup' in key or 'label_smoothing' in key for key in definitions(config)['targets/vit'])


def test_options_that_are_on_belong_to_the_definition_and_reach_the_recipe():
    config = digits.get_config()
    config.augmentation.update(random_resized_crop=(0.1, 1.0), rand_augment=(2, 9), mixup=0.2, cutmix=1.0)
    config.optim.label_smoothing = 0.1
    config.targets.vit.optim.label_smoothing = 0.0
    found = definitions(config)
    assert found['targets/vit']['augmentation.random_resized_crop'] == [0.1, 1.0]
    assert found['targets/vit']['targets.vit.optim.label_smoothing'] == 0.0
    by_name = {network.folder: network.recipe for network in read(config).networks}
    recipe = by_name['targets/mlp']
    assert recipe.augmentation.on_host() == data.HostAugmentation(
        data.RandomResizedCrop((0.1, 1.0)), data.RandAugment(2, 9)
    )
    assert recipe.augmentation.mixing(10) == data.Mixing(10, 0.2, 1.0)
    assert (recipe.label_smoothing, by_name['targets/vit'].label_smoothing) == (0.1, 0.0)


@pytest.mark.parametrize(
    ('section', 'values', 'message'),
    [
        ('augmentation', {'mix_up': 0.2}, "unknown option of augmentation: 'mix_up'; did you mean 'mixup'"),
        ('augmentation', {'mixup': '0.2'}, "mixup of augmentation must be float, got '0.2'"),
        ('augmentation', {'rand_augment': 9}, 'rand_augment of augmentation must be .*, got 9'),
        ('augmentation', {'random_resized_crop': [0.5, 2.0]}, r'min_area <= max_area <= 1, got \(0.5, 2.0\)'),
        ('optim', {'label_smoothing': 1.5}, 'label_smoothing must be .* below 1, got 1.5'),
    ],
)
def test_wrong_values_are_refused(section, values, message):
    config = digits.get_config().to_dict()
    config[section].update(values)
    with pytest.raises(errors.InputError, match=message):
        reading.read(pinning.pinned(config))


def test_the_stage_streams_augmented_images(tmp_path, monkeypatch):
    config = small_experiment.get_config()
    config.augmentation.update(random_resized_crop=(0.3, 1.0), mixup=0.2)
    plan, workdir = experiment.open_workdir(config.to_dict(), tmp_path, console.Console())
    fitted = {}

    def fit(runs, validation, program, **options):
        loader = runs[0].loader
        fitted.update(program=program, batch=next(loader.epoch(1)), seed=loader.seed, size=loader.batch_size)

    monkeypatch.setattr(training, 'fit', fit)
    experiment.train(plan, workdir, only=['targets/mlp'])
    splits = data.SOURCES.make('digits')
    host = fitted['program'].recipe.augmentation.on_host()
    transform = host.transform(splits.train, (8, 8, 1), seed=fitted['seed'], epoch=1)
    order = np.asarray(data.epoch_order(len(splits.train), fitted['size'], seed=fitted['seed'], epoch=1))[0]
    np.testing.assert_array_equal(fitted['batch'].images, np.stack([transform(splits.train[p]) for p in order]))
    assert fitted['program'].steps_per_call == 1

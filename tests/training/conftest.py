"""Small networks and data for the tests of training."""

import dataclasses

import jax
import numpy as np
import pytest

from rfn_jax import data, models, training
from rfn_jax.core import console, digests, rng, sharding

OPTIONS = {
    'epochs': 3, 'batch_size': 16, 'learning_rate': 0.05, 'momentum': 0.9, 'weight_decay': 5e-4, 'decay_epochs': (),
    'decay_factor': 0.1, 'augmentation': data.Augmentation(crop_padding=1), 'minimizer': {'name': 'rfn_sam', 'rho': 0.2},
}  # fmt: skip


@dataclasses.dataclass
class Bench:
    """A network, data and the arguments of `fit`."""

    classifier: models.Classifier
    train: data.ImageDataset
    validation: data.ImageDataset
    options: dict = dataclasses.field(default_factory=lambda: OPTIONS)
    programs: dict = dataclasses.field(default_factory=dict)  # compiled once, whatever the number of epochs

    def fit(self, directory, *, devices=None, seed=0, keep_all=True, **options):
        """Trains into `directory`, with options of the recipe replaced."""
        self.fit_several({seed: directory}, devices=devices, keep_all=keep_all, **options)

    def fit_several(self, directories, *, devices=None, keep_all=True, **options):
        """Trains one network for each seed, all at the same time, into its directory."""
        recipe, mesh = training.Recipe(**{**self.options, **options}), sharding.data_mesh(devices)
        sizes = {'batch_size': recipe.batch_size, 'streaming': recipe.streaming}
        loader = data.loader(self.train, self.train.info(), seed=0, mesh=mesh, **sizes)
        key = repr((dataclasses.replace(recipe, epochs=99), loader.steps_per_epoch, mesh.devices))
        if key not in self.programs:
            steps = loader.steps_per_epoch
            self.programs[key] = training.program(self.classifier, recipe, steps_per_epoch=steps, mesh=mesh)
        program = dataclasses.replace(self.programs[key], recipe=recipe)
        runs = [
            training.Run(
                self.initial(seed), data.with_seed(loader, seed), directory, f'test {seed}' if seed else 'test'
            )
            for seed, directory in directories.items()
        ]
        options = {'keep_all': keep_all, 'batch_size': 32, 'console': console.Console()}
        training.fit(runs, self.validation, program, **options)

    def initial(self, seed):
        """The classifier before training."""
        c = self.classifier
        shared = {'num_classes': c.num_classes, 'mean': c.mean, 'std': c.std}
        return models.initialize(c.module, rng.key_for(0, 'test', seed), (8, 8, 1), **shared) if seed else c

    def optimizer(self, **options):
        """The optimizer of `fit`."""
        return training.Recipe(**{**self.options, **options}).optimizer(steps_per_epoch=4)

    def state(self, directory, epoch, **options):
        """The state saved in `directory` after an epoch, on the host."""
        with training.CheckpointStore(directory / 'checkpoints', keep_all=True) as store:
            return jax.device_get(store.restore(epoch, training.create(self.classifier, self.optimizer(**options))))

    def digest(self, directory, epoch, **options):
        """The hash of that state."""
        return digests.of_arrays(self.state(directory, epoch, **options))

    def variables_digest(self, directory, epoch):
        """The hash of the variables saved in `directory` after an epoch, which are read and checked."""
        with training.CheckpointStore(directory / 'checkpoints', keep_all=True) as store:
            return digests.of_arrays(store.restore_classifier(epoch, self.classifier).variables)


@pytest.fixture(scope='session')
def bench():
    splits = data.SOURCES.make('digits')
    train, validation = splits.train.take(np.arange(64)), splits.validation.take(np.arange(40))
    mean, std = train.mean_and_std()
    module = models.MODELS.make('mlp', num_classes=10, widths=(32,))
    key = rng.key_for(0, 'test')
    classifier = models.initialize(module, key, train.image_shape, num_classes=10, mean=mean, std=std)
    return Bench(classifier, train, validation)


@pytest.fixture(scope='session')
def trained(bench, tmp_path_factory):
    """A directory with three finished epochs, to be copied."""
    directory = tmp_path_factory.mktemp('trained')
    bench.fit(directory)
    return directory


@pytest.fixture(scope='session')
def conv_bench(bench):
    """The same with convolutions."""
    old = bench.classifier
    module = models.MODELS.make('resnet', num_classes=10, stage_sizes=(1,), widths=(4,))
    key = rng.key_for(0, 'test')
    classifier = models.initialize(module, key, (8, 8, 1), num_classes=10, mean=old.mean, std=old.std)
    return dataclasses.replace(bench, classifier=classifier, programs={})

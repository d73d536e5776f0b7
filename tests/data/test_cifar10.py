import dataclasses
import os

import numpy as np
import pytest

from rfn_jax.core.errors import InputError
from rfn_jax.data import SOURCES, in_memory, tfds_source

NAMES = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
COUNTS = {'train_examples': 300, 'validation_examples': 120, 'test_examples': 70}

needs_data = pytest.mark.skipif('TFDS_DATA_DIR' not in os.environ, reason='TFDS_DATA_DIR is not set')


@pytest.fixture(scope='module')
def splits():
    splits = SOURCES.make('cifar10', **COUNTS)
    parts = {name: in_memory(getattr(splits, name), splits.info) for name in ('train', 'validation', 'test')}
    return dataclasses.replace(splits, **parts)


@needs_data
@pytest.mark.parametrize('by', ['argument', 'environment'])
def test_opening_decodes_nothing(by, monkeypatch):
    monkeypatch.setattr(tfds_source.TfdsSource, '__getitem__', lambda *_: pytest.fail('an image was decoded'))
    directory = {'data_dir': os.environ['TFDS_DATA_DIR']} if by == 'argument' else {}
    if directory:
        monkeypatch.delenv('TFDS_DATA_DIR')
    splits = SOURCES.make('cifar10', **directory, **COUNTS)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (300, 120, 70)
    assert (splits.info.image_shape, splits.info.class_names, splits.info.num_classes) == ((32, 32, 3), NAMES, 10)


@needs_data
def test_shapes_classes_and_statistics(splits):
    for examples, count in zip((splits.train, splits.validation, splits.test), COUNTS.values(), strict=True):
        assert (examples.images.shape, examples.images.dtype) == ((count, 32, 32, 3), np.uint8)
        assert (examples.labels.dtype, examples.class_names) == (np.int32, NAMES)
        np.testing.assert_array_equal(np.unique(examples.labels), np.arange(10))
    mean, std = splits.train.mean_and_std()  # of 300 of the 50 000 images
    np.testing.assert_allclose(splits.info.mean, mean, atol=0.02)
    np.testing.assert_allclose(splits.info.std, std, atol=0.02)
    # Training examples are the first, and validation examples the last.
    np.testing.assert_array_equal(splits.train.ids, np.arange(300))
    np.testing.assert_array_equal(splits.validation.ids, np.arange(50_000 - 120, 50_000))
    np.testing.assert_array_equal(splits.test.ids, np.arange(70))
    assert (splits.train.source, splits.validation.source) == ('cifar10/train', 'cifar10/train')
    assert splits.test.source == 'cifar10/test'


@needs_data
def test_images_are_those_that_tfds_decodes(splits):
    import tensorflow_datasets as tfds

    for examples in (splits.train, splits.validation, splits.test):
        name, split = examples.source.split('/')
        source = tfds.data_source(name, split=split, data_dir=os.environ['TFDS_DATA_DIR'])
        for i in (0, 1, len(examples) // 2, len(examples) - 1):
            example = source[int(examples.ids[i])]
            np.testing.assert_array_equal(examples.images[i], example['image'])
            assert examples.labels[i] == example['label']


@needs_data
@pytest.mark.parametrize(
    'counts',
    [{'train_examples': 45_001}, {'train_examples': 1, 'validation_examples': 50_000}, {'test_examples': 10_001}],
)
def test_more_examples_than_there_are_is_an_error(counts):
    with pytest.raises(InputError, match=f'{next(iter(counts))} .*at most'):
        SOURCES.make('cifar10', **counts)


@pytest.mark.parametrize('name', COUNTS.keys())
@pytest.mark.parametrize('count', [0, -1])
def test_a_split_has_at_least_one_example(name, count):
    with pytest.raises(InputError, match=f'{name} must be an integer of at least 1, got {count}'):
        SOURCES.make('cifar10', **{name: count})


@pytest.mark.parametrize('by', ['argument', 'environment'])
def test_a_missing_directory_is_named(by, tmp_path, monkeypatch):
    directory = str(tmp_path / 'nothing-here')
    monkeypatch.setenv('TFDS_DATA_DIR', directory if by == 'environment' else 'elsewhere')
    with pytest.raises(InputError, match=r'no cifar10 .*nothing-here'):
        SOURCES.make('cifar10', data_dir=directory if by == 'argument' else '')
    assert not list(tmp_path.iterdir())

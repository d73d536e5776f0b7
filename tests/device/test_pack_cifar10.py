import os

import numpy as np
import pack_cifar10
import pytest

from rfn_jax import data


@pytest.mark.skipif('TFDS_DATA_DIR' not in os.environ, reason='TFDS_DATA_DIR is not set')
def test_unpacked_images_are_those_that_tfds_decodes(tmp_path):
    pack_cifar10.pack(tmp_path / 'packed.npz', examples={'train': 40, 'test': 30})
    pack_cifar10.unpack(tmp_path / 'packed.npz', tmp_path / 'arrays.npz')
    found = data.SOURCES.make('arrays', path=str(tmp_path / 'arrays.npz'), validation_examples=10)
    splits = data.SOURCES.make('cifar10', train_examples=40, validation_examples=1, test_examples=30)
    train, test = (data.in_memory(part, splits.info) for part in (splits.train, splits.test))
    for name in ('images', 'labels'):
        both = [getattr(part, name) for part in (found.train, found.validation)]
        np.testing.assert_array_equal(np.concatenate(both), getattr(train, name))
    np.testing.assert_array_equal(found.test.images, test.images)
    np.testing.assert_array_equal(found.validation.ids, np.arange(30, 40))
    assert found.info.class_names == splits.info.class_names

import hashlib

import numpy as np
import pytest
import sklearn.datasets

from rfn_jax.data import SOURCES

# The splits never change: results of different versions are compared on them.
SPLITS = {
    'train': (1000, '2fabb9c7fdcb3cb4590a6db8505001208c2e0392f7ef736c2325e17ddca3a10e'),
    'validation': (250, 'f7c1bf5dd1ea2fff1b47438979fe292d8f609712f2ba1536cbfa8ba0856dcef4'),
    'test': (547, 'c87654cdeac4f3e8fc428e0e12bf4529ed30739d39b030f48f7b6cdadc233d45'),
}


@pytest.fixture(scope='module')
def splits():
    return SOURCES.make('digits')


@pytest.mark.parametrize('name', SPLITS.keys())
def test_splits_are_fixed_balanced_and_those_of_scikit_learn(splits, name):
    examples, bunch = getattr(splits, name), sklearn.datasets.load_digits()
    size, digest = SPLITS[name]
    assert len(examples) == size
    assert hashlib.sha256(' '.join(map(str, examples.ids.tolist())).encode()).hexdigest() == digest
    assert (examples.image_shape, examples.images.max()) == ((8, 8, 1), 255)
    np.testing.assert_array_equal(np.rint(examples.images[..., 0] / 255 * 16), bunch.images[examples.ids])
    np.testing.assert_array_equal(examples.labels, bunch.target[examples.ids])
    assert examples.labels.dtype == np.int32
    assert examples.class_names == tuple('0123456789')
    assert np.all(np.abs(np.bincount(examples.labels, minlength=10) / size - 0.1) < 0.05)


def test_splits_are_disjoint_and_hold_every_example(splits):
    ids = [*splits.train.ids, *splits.validation.ids, *splits.test.ids]
    assert sorted(ids) == list(range(1797))
    assert splits.info == splits.train.info()

"""Images decoded by other processes."""

import pathlib

import image_files
import jax
import numpy as np
import pytest

from rfn_jax import data
from rfn_jax.core import errors, sharding


def splits(root):
    image_files.write_folder(root / 'images', count=6)
    return data.image_folder(directory=str(root / 'images'), image_size=8)


@pytest.mark.slow
def test_the_batches_of_two_workers_are_those_of_threads(tmp_path):
    given = splits(tmp_path)
    augmentation = data.Augmentation(random_resized_crop=(0.3, 1.0)).on_host()
    options = {'batch_size': 4, 'seed': 1, 'mesh': sharding.data_mesh(jax.devices()[:1])}
    found = [
        list(
            data.StreamingLoader(given.train, given.info, augmentation=augmentation, workers=workers, **options).epoch(
                3
            )
        )
        for workers in (0, 2)
    ]
    assert len(found[0]) == len(given.train) // 4
    for one, other in zip(*found, strict=True):
        for name in ('images', 'labels', 'ids'):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.slow
def test_a_worker_reports_a_damaged_image(tmp_path):
    given = splits(tmp_path)
    path = next(pathlib.Path(tmp_path, 'images', 'train').glob('*/*.png'))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(errors.InputError, match=path.name):
        list(data.read_batches(given.train, np.arange(len(given.train)), 4, image_shape=(8, 8, 3), workers=1))

import numpy as np
import pytest

from rfn_jax.core.errors import InputError
from rfn_jax.data import ImageDataset

IMAGES = np.random.default_rng(0).integers(256, size=(5, 3, 4, 2)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 1, 0], np.int32)
IDS = np.array([10, 11, 12, 13, 14])
NAMES = ('cat', 'dog', 'cow')


def make(**changes):
    values = {'images': IMAGES, 'labels': LABELS, 'ids': IDS, 'class_names': NAMES, 'source': 'toy'}
    return ImageDataset(**values | changes)


@pytest.mark.parametrize('positions', [np.array([3, 0, 0]), np.array([False, True, False, True, True])])
def test_take_keeps_the_parts_together(positions):
    taken = make().take(positions)
    indices = np.flatnonzero(positions) if positions.dtype == bool else positions
    for name, values in (('images', IMAGES), ('labels', LABELS), ('ids', IDS)):
        np.testing.assert_array_equal(getattr(taken, name), [values[index] for index in indices])
    assert (taken.class_names, taken.source) == (NAMES, 'toy')


def test_sizes_and_records():
    examples = make()
    assert (len(examples), examples.num_classes, examples.image_shape) == (5, 3, (3, 4, 2))
    image, label, number = examples[3]
    np.testing.assert_array_equal(image, IMAGES[3])
    assert (label, number, number.dtype) == (1, 13, np.int64)


def test_mean_and_std_are_those_of_each_channel():
    mean, std = make().mean_and_std()
    for channel in range(2):
        values = IMAGES[..., channel].ravel() / 255
        assert mean[channel] == pytest.approx(np.mean(values), abs=1e-12)
        assert std[channel] == pytest.approx(np.sqrt(np.mean((values - np.mean(values)) ** 2)), abs=1e-12)
    assert all(type(value) is float for value in mean + std)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'images': IMAGES.astype(np.float32)}, r'images of toy must be uint8 \[N, H, W, C\], got float32'),
        ({'images': IMAGES[..., 0]}, r'images of toy must be uint8 \[N, H, W, C\], got uint8 \(5, 3, 4\)'),
        ({'labels': LABELS[:4]}, 'toy has 5 images, 4 labels and 5 ids'),
        ({'ids': IDS[:3]}, 'toy has 5 images, 5 labels and 3 ids'),
        ({'labels': np.array([0, 1, 3, 1, 0])}, 'label 3 of toy is out of range: it has 3 classes, 0 to 2'),
        ({'labels': np.array([0, -1, 2, 1, 0])}, 'label -1 of toy is out of range'),
    ],
)
def test_arrays_that_do_not_match_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        make(**changes)

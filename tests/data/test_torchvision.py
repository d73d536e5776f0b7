"""Against torchvision's own output, which `make_golden_images.py` has stored."""

import math
import pathlib
import types

import numpy as np
import PIL
import pytest
import synthetic

from rfn_jax import data
from rfn_jax.data import rand_augment, resizing

GOLDEN = dict(np.load(pathlib.Path(__file__).with_name('golden_images.npz')))


def entries(kind):
    found = [key for key in GOLDEN if key.startswith(kind)]
    assert found
    return found


def assert_same(found, key):
    """Equal pixels, or with another version of Pillow at most one gray level on average."""
    assert found.dtype == np.uint8
    if PIL.__version__ == str(GOLDEN['pillow']):
        np.testing.assert_array_equal(found, GOLDEN[key], err_msg=key)
    assert found.shape == GOLDEN[key].shape
    assert np.abs(found.astype(float) - GOLDEN[key]).mean() <= 1, key


@pytest.mark.parametrize('key', entries('resize'))
def test_resize_and_center_crop(key):
    _, size, resize, crop, interpolation = key.split('/')
    image = synthetic.image(*map(int, size.split('x')))
    assert_same(data.ResizeAndCrop(int(crop), int(resize), interpolation)(image), key)


@pytest.mark.parametrize('key', entries('crop'))
def test_resized_crops(key):
    _, box, interpolation = key.split('/')
    left, top, right, bottom = map(int, box.split(','))
    image = synthetic.image(37, 53)
    assert_same(resizing.resized(image[top:bottom, left:right], 24, 24, interpolation), key)


@pytest.mark.parametrize('key', entries('center'))
def test_the_crop_after_ten_tries(key):
    draws = []

    def largest(low, high):
        draws.append(high)
        return 9.0 if high == 1 else high  # nine times the area

    crop = data.RandomResizedCrop((0.08, 1.0), (3 / 4, 4 / 3))
    height, width = map(int, key.split('/')[1].split('x'))
    assert crop.box(height, width, types.SimpleNamespace(uniform=largest)) == tuple(GOLDEN[key])
    assert draws == [1.0, math.log(4 / 3)] * 10


NAMES = {
    'Identity': 'identity', 'ShearX': 'shear_x', 'ShearY': 'shear_y', 'TranslateX': 'translate_x',
    'TranslateY': 'translate_y', 'Rotate': 'rotate', 'Brightness': 'brightness', 'Color': 'color', 'Contrast': 'contrast',
    'Sharpness': 'sharpness', 'Posterize': 'posterize', 'Solarize': 'solarize', 'AutoContrast': 'auto_contrast',
    'Equalize': 'equalize',
}  # fmt: skip


@pytest.mark.parametrize('key', entries('rand_augment'))
def test_operations_of_rand_augment(key):
    _, name, magnitude, sign, channels = key.split('/')
    index = list(rand_augment.OPERATIONS).index(NAMES[name])
    draws = iter([index, int(sign == '-1')])
    generator = types.SimpleNamespace(integers=lambda limit: next(draws))
    image = synthetic.image(21, 26, int(channels))
    assert_same(data.RandAugment(1, int(magnitude))(image, generator), key)


def test_the_operations_are_torchvisions():
    assert {key.split('/')[1] for key in entries('rand_augment')} == set(NAMES)
    assert list(NAMES.values()) == list(rand_augment.OPERATIONS)
    signed = {NAMES[key.split('/')[1]] for key in entries('rand_augment') if key.split('/')[3] == '-1'}
    assert signed == {name for name, operation in rand_augment.OPERATIONS.items() if operation.signed}

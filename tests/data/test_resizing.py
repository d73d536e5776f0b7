"""Sizes and errors of the resize and center crop; its pixels are compared in `test_torchvision.py`."""

import numpy as np
import pytest
import synthetic

from rfn_jax import data
from rfn_jax.core.errors import InputError
from rfn_jax.data import resizing


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize(('height', 'width'), [(40, 60), (60, 41), (8, 8), (3, 50), (1, 1), (28, 28)])
def test_every_image_gets_the_size(height, width, channels):
    found = data.ResizeAndCrop(24, 28)(synthetic.image(height, width, channels))
    assert (found.shape, found.dtype) == ((24, 24, channels), np.uint8)


def test_an_image_of_the_right_size_stays_as_it_is_and_gray_images_are_resized_like_color():
    image = synthetic.image(24, 24)
    np.testing.assert_array_equal(data.ResizeAndCrop(24, 24)(image), image)
    gray = synthetic.image(50, 33, 1)
    transform = data.ResizeAndCrop(20, 25, 'bicubic')
    np.testing.assert_array_equal(transform(np.repeat(gray, 3, axis=2))[..., :1], transform(gray))


def test_the_usual_resize_is_eight_sevenths():
    assert [resizing.usual_resize(size) for size in (224, 7, 8, 1)] == [256, 8, 10, 2]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((0, 8), 'image_size must be an integer of at least 1, got 0'),
        ((8, 7), 'resize must be an integer of at least 8, got 7'),
        ((8, 8, 'nearest'), "unknown interpolation 'nearest'; did you mean 'bilinear'"),
    ],
)
def test_wrong_options_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        data.ResizeAndCrop(*arguments)


def test_a_resized_source_keeps_everything_but_the_size():
    class One:
        source, ids = 'one', np.array([5])

        def __len__(self):
            return 1

        def __getitem__(self, position):
            return data.Record(synthetic.image(30, 20), np.int32(1), self.ids[position])

    resized = data.ResizedSource(One(), data.ResizeAndCrop(8, 10))
    assert (len(resized), resized.source, resized.ids.tolist()) == (1, 'one', [5])
    image, label, number = resized[0]
    np.testing.assert_array_equal(image, resized.transform(synthetic.image(30, 20)))
    assert (label, number) == (1, 5)

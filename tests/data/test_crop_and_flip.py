import jax
import numpy as np
import pytest

from rfn_jax.core.errors import InputError
from rfn_jax.data import CropAndFlip

IMAGES = (
    np.random.default_rng(0).integers(1, 256, size=(12, 5, 6, 3)).astype(np.uint8)
)  # zeros appear only in the padding
KEYS = jax.random.split(jax.random.key(0), 12)


def slow(image, key, pad, flip):
    """Augments pixel by pixel, with draws from the first and the second half of the key."""
    crop_key, flip_key = jax.random.split(key)
    row, column = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1) if pad else (0, 0)
    mirrored = flip and bool(jax.random.bernoulli(flip_key))
    height, width, _ = image.shape
    result = np.zeros_like(image)
    for r in range(height):
        for c in range(width):
            from_r, from_c = r + int(row) - pad, (width - 1 - c if mirrored else c) + int(column) - pad
            if 0 <= from_r < height and 0 <= from_c < width:
                result[r, c] = image[from_r, from_c]
    return result


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
@pytest.mark.parametrize(('pad', 'flip'), [(2, True), (2, False), (0, True), (4, True)])
def test_augmented_images_equal_the_slow_reference(pad, flip, dtype):
    images = IMAGES.astype(dtype)
    augmented = jax.jit(CropAndFlip(pad, flip))(images, KEYS)
    assert augmented.dtype == dtype
    for image, key, result in zip(images, KEYS, augmented, strict=True):
        np.testing.assert_array_equal(result, slow(image, key, pad, flip))


def test_by_default_nothing_is_done():
    np.testing.assert_array_equal(CropAndFlip()(IMAGES, KEYS), IMAGES)


def test_an_image_does_not_depend_on_its_batch():
    augment = jax.jit(CropAndFlip(2, flip=True))
    whole = augment(IMAGES, KEYS)
    order = np.array([7, 2, 5])
    np.testing.assert_array_equal(augment(IMAGES[order], KEYS[order]), whole[order])


def test_positions_and_flips_are_drawn_uniformly_and_independently():
    # One marked pixel in the middle shows the position of the crop, and a second one beside it shows the flip.
    image = np.zeros((7, 7, 1), np.uint8)
    image[3, 3], image[3, 4] = 1, 2
    keys = jax.random.split(jax.random.key(1), 3600)
    augmented = np.asarray(jax.jit(CropAndFlip(1, flip=True))(np.broadcast_to(image, (3600, 7, 7, 1)), keys))[..., 0]
    places = np.stack(np.nonzero(augmented == 1), axis=1)[:, 1:]
    flipped = np.nonzero(augmented == 2)[2] < np.nonzero(augmented == 1)[2]
    counts = np.zeros((3, 3, 2), int)
    np.add.at(counts, (places[:, 0] - 2, places[:, 1] - 2, flipped.astype(int)), 1)
    assert counts.sum() == 3600
    assert np.all(np.abs(counts - 200) < 4.5 * np.sqrt(200))


def test_negative_padding_is_refused():
    with pytest.raises(InputError, match='crop_padding must be an integer of at least 0, got -1'):
        CropAndFlip(crop_padding=-1)

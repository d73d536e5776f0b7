import jax
import numpy as np
import pytest

from rfn_jax.core.errors import InputError
from rfn_jax.data import CropAndFlip

# Zeros appear only in the padding.
IMAGES = np.random.default_rng(0).integers(1, 256, size=(12, 5, 6, 3)).astype(np.uint8)
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


@pytest.mark.parametrize(
    ('pad', 'flip', 'dtype'),
    [(2, True, np.uint8), (2, True, np.float32), (2, False, np.uint8), (0, True, np.uint8), (4, True, np.float32)],
)
def test_augmented_images_equal_the_slow_reference_in_any_batch(pad, flip, dtype):
    images, order = IMAGES.astype(dtype), np.array([7, 2, 5])
    augment = jax.jit(CropAndFlip(pad, flip))
    augmented = augment(images, KEYS)
    assert augmented.dtype == dtype
    if (pad, flip) == (2, True):
        np.testing.assert_array_equal(augment(images[order], KEYS[order]), augmented[order])
    for image, key, result in zip(images, KEYS, augmented, strict=True):
        np.testing.assert_array_equal(result, slow(image, key, pad, flip))


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


def test_by_default_nothing_is_done_and_negative_padding_is_refused():
    np.testing.assert_array_equal(CropAndFlip()(IMAGES, KEYS), IMAGES)
    with pytest.raises(InputError, match='crop_padding must be an integer of at least 0, got -1'):
        CropAndFlip(crop_padding=-1)

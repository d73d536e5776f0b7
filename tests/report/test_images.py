import base64
import io

import matplotlib.image
import numpy as np
import pytest

from rfn_jax.report import images


@pytest.mark.parametrize('shape', [(8, 8, 1), (32, 32, 3), (224, 224, 3), (5, 9, 3)])
def test_png_holds_the_pixels(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    uri = images.data_uri(image)
    assert uri.startswith('data:image/png;base64,')
    read = matplotlib.image.imread(io.BytesIO(base64.b64decode(uri.split(',')[1])), format='png')
    np.testing.assert_array_equal(np.round(255 * read[..., :3]), np.broadcast_to(image, (*shape[:2], 3)))


def test_perturbation_is_the_scaled_difference_around_gray():
    clean = np.array([[[10], [250], [100]]], np.uint8)
    adversarial = np.array([[[14], [246], [100]]], np.uint8)
    shown = images.perturbation(clean, adversarial, 31)
    assert shown.dtype == np.uint8
    assert shown.ravel().tolist() == [128 + 124, 128 - 124, 128]


@pytest.mark.parametrize(('largest', 'factor'), [(0, 127), (1, 127), (4, 31), (51, 2), (200, 1)])
def test_amplification_uses_the_range_without_clipping(largest, factor):
    clean = np.full((2, 4, 4, 3), 200, np.uint8)
    adversarial = clean.copy()
    adversarial[1, 2, 2, 1] -= largest
    assert images.amplification(clean, [clean, adversarial]) == factor

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from one_copy import apply

from rfn_jax.attacks.inputs import resizing, shifts
from rfn_jax.core.errors import InputError

GENERATOR = np.random.default_rng(0)
IMAGES = np.random.default_rng(0).uniform(0.1, 1, size=(2, 6, 7, 2)).astype(np.float32)


def interpolate(image, rows, columns, method):
    """`torch.nn.functional.interpolate(align_corners=False, antialias=False)`, pixel by pixel."""
    height, width, _ = image.shape
    result = np.zeros((rows, columns, image.shape[2]))
    for i in range(rows):
        for j in range(columns):
            if method == 'nearest':
                result[i, j] = image[int(np.floor(i * height / rows + 1e-9)), int(np.floor(j * width / columns + 1e-9))]
                continue
            y, x = max((i + 0.5) * height / rows - 0.5, 0.0), max((j + 0.5) * width / columns - 0.5, 0.0)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = (1 - (x - left)) * image[top, left] + (x - left) * image[top, right]
            lower = (1 - (x - left)) * image[bottom, left] + (x - left) * image[bottom, right]
            result[i, j] = (1 - (y - top)) * upper + (y - top) * lower
    return result


def test_interpolation_gives_the_published_example_of_pytorch():
    # torch.nn.Upsample(scale_factor=2, mode=...), from its documentation.
    small = np.array([[1.0, 2.0], [3.0, 4.0]])
    bilinear = [[1, 1.25, 1.75, 2], [1.5, 1.75, 2.25, 2.5], [2.5, 2.75, 3.25, 3.5], [3, 3.25, 3.75, 4]]
    nearest = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    for method, expected in (('bilinear', bilinear), ('nearest', nearest)):
        matrix = np.asarray(resizing.interpolation_matrix(2, 4, 0, 4, method))
        np.testing.assert_array_equal(matrix @ small @ matrix.T, expected)
        np.testing.assert_array_equal(interpolate(small[..., None], 4, 4, method)[..., 0], expected)


@pytest.mark.parametrize('method', resizing.METHODS)
@pytest.mark.parametrize(
    ('shape', 'canvas', 'sizes', 'offsets'),
    [
        ((10, 10, 3), (13, 13), [(10, 10), (11, 11), (12, 12)], [(0, 0), (1, 0), (0, 1)]),
        ((7, 9, 1), (10, 12), [(7, 9), (9, 11), (10, 12)], [(3, 1), (1, 0), (0, 0)]),
        ((8, 8, 2), (8, 8), [(5, 5), (7, 7), (1, 8)], [(3, 0), (0, 1), (7, 0)]),
    ],
)
def test_resize_and_pad_equals_the_textbook(shape, canvas, sizes, offsets, method):
    image = GENERATOR.uniform(size=shape).astype(np.float32)
    resize = jax.jit(functools.partial(resizing.resize_and_pad, canvas=canvas, method=method))
    for size, offset in zip(sizes, offsets, strict=True):
        padded = np.zeros((*canvas, shape[2]))
        (r, s), (a, b) = size, offset
        padded[a : a + r, b : b + s] = interpolate(image.astype(np.float64), r, s, method)
        expected = interpolate(padded, *shape[:2], method)
        result = resize(image, jnp.array(size), jnp.array(offset))  # one compilation for all draws
        np.testing.assert_allclose(result, expected, atol=2e-6)
    assert resize._cache_size() == 1


@pytest.mark.parametrize('method', resizing.METHODS)
def test_large_sizes_are_interpolated_exactly(method):
    line = GENERATOR.uniform(size=(299, 1, 1))
    for size in (299, 310, 329):
        matrix = np.asarray(resizing.interpolation_matrix(299, size, 1, 330, method), np.float64)
        result = (matrix @ line[:, :, 0])[:, 0]
        np.testing.assert_allclose(result[1 : 1 + size], interpolate(line, size, 1, method)[:, 0, 0], atol=1e-6)
        assert result[0] == 0
        np.testing.assert_array_equal(result[1 + size :], 0)


@pytest.mark.parametrize(
    ('shape', 'rate', 'expected'),
    [
        ((224, 224), 1.1, ((224, 224), (246, 246))),  # TransferAttack
        ((224, 224), 0.9, ((201, 201), (224, 224))),  # torchattacks
        ((299, 299), 330 / 299, ((299, 299), (330, 330))),  # the paper
        ((32, 32), 1.1, ((32, 32), (35, 35))),
        ((100, 60), 1.15, ((100, 60), (115, 69))),
    ],
)
def test_the_range_of_sizes_is_that_of_other_libraries(shape, rate, expected):
    assert resizing.size_range(shape, rate) == expected


def test_sizes_and_places_are_drawn_uniformly_from_their_ranges():
    count, height, width = 6000, 10, 20
    results = apply(resizing.input_diversity(0.6, 1.0), np.ones((count, height, width, 1), np.float32))[..., 0]
    # The canvas has the size of the image: nothing is resized back.
    assert set(np.unique(results.round(5))) == {0.0, 1.0}
    rows, columns = results.max(2) > 0.5, results.max(1) > 0.5
    tall, wide = rows.sum(1), columns.sum(1)
    assert scipy.stats.chisquare(np.bincount(tall)[6:], np.full(4, count / 4)).pvalue > 1e-3
    assert set(tall) == {6, 7, 8, 9}
    assert set(wide) == set(range(12, 20))
    np.testing.assert_array_equal(tall, 6 + (wide - 12) // 2)  # one draw for both axes
    top, left = rows.argmax(1), columns.argmax(1)
    for size in (6, 7, 8):  # the last position, at the far edge, is left out, as in other libraries
        assert scipy.stats.chisquare(np.bincount(top[tall == size], minlength=10 - size)).pvalue > 1e-3
        assert top[tall == size].max() == 10 - size - 1
    for size in range(12, 20):
        assert set(left[wide == size]) == set(range(20 - size))
    assert abs(np.corrcoef(top[tall == 6], left[tall == 6])[0, 1]) < 0.1  # each axis has its own position


def test_sizes_above_the_image_are_drawn_too():
    image = GENERATOR.uniform(size=(10, 10, 1)).astype(np.float32)
    results = apply(resizing.input_diversity(1.3, 1.0), np.broadcast_to(image, (400, 10, 10, 1)))
    resize = jax.jit(functools.partial(resizing.resize_and_pad, canvas=(13, 13), method='bilinear'))
    found = np.zeros(400, int)
    for size in (10, 11, 12):
        for a in range(13 - size):
            for b in range(13 - size):
                expected = resize(image, jnp.array([size, size]), jnp.array([a, b]))
                found += np.all(np.abs(results - expected) < 1e-5, axis=(1, 2, 3))
    np.testing.assert_array_equal(found, 1)


@pytest.mark.parametrize('probability', [0.0, 0.3, 1.0])
def test_the_probability_is_how_often_an_image_is_transformed(probability):
    images = GENERATOR.uniform(0.1, 1, size=(2000, 4, 4, 1)).astype(np.float32)
    results = apply(resizing.input_diversity(1.5, probability), images)
    changed = np.any(results != images, axis=(1, 2, 3)).sum()
    assert scipy.stats.binomtest(changed, len(images), probability).pvalue > 1e-3


@pytest.mark.parametrize(
    ('shape', 'rate', 'message'),
    [
        ((8, 8), 1.1, r'rate 1\.1 leaves no size to draw for images of 8 x 8 pixels: use a rate of at least 1\.125'),
        ((20, 9), 1.1, r'rate 1\.1 leaves no size to draw for images of 20 x 9 pixels: use a rate of at least 1\.111'),
        ((5, 5), 0.1, r'rate 0\.1 leaves no size to draw for images of 5 x 5 pixels: use a rate in \[0\.2, 1\)'),
    ],
)
def test_images_that_leave_nothing_to_draw_are_refused_when_traced(shape, rate, message):
    with pytest.raises(InputError, match=message):
        apply(resizing.input_diversity(rate), jnp.zeros((1, *shape, 1)))


@pytest.mark.parametrize(('length', 'rate'), [(8, 1.125), (9, 1.1112), (5, 0.2)])
def test_the_rates_that_the_message_allows_work(length, rate):
    smallest, canvas = resizing.size_range((length, length), rate)
    assert 1 <= smallest[0] < canvas[0]


def shifted(image, a, b):
    """The image with content `a` down and `b` to the right, pixel by pixel."""
    result = np.zeros_like(image)
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            if 0 <= i - a < image.shape[0] and 0 <= j - b < image.shape[1]:
                result[i, j] = image[i - a, j - b]
    return result


def test_shift_moves_the_image_and_zeros_move_in():
    for a in range(-3, 4):
        for b in (-3, -1, 0, 2):
            result = shifts.shift(jnp.asarray(IMAGES[0]), jnp.array([a, b]), 3)
            np.testing.assert_array_equal(result, shifted(IMAGES[0], a, b))


def test_every_shift_is_drawn_equally_often():
    count, most = 4000, 2
    images = np.broadcast_to(IMAGES[:1], (count, *IMAGES.shape[1:]))
    results = apply(shifts.random_shift(most), images)
    seen = np.array(
        [
            np.sum(np.all(results == shifted(IMAGES[0], a, b), axis=(1, 2, 3)))
            for a in range(-most, most + 1)
            for b in range(-most, most + 1)
        ]
    )
    assert seen.sum() == count
    assert scipy.stats.chisquare(seen).pvalue > 1e-3


def test_a_shift_out_of_the_image_is_refused():
    with pytest.raises(InputError, match='max_shift 6 must be below the size of the images, 6 x 7 pixels'):
        apply(shifts.random_shift(6), IMAGES)

"""Each row of the table in `decode`, with files that Pillow writes."""

import io

import numpy as np
import pytest
import synthetic
from PIL import Image

from rfn_jax.core.errors import InputError
from rfn_jax.data import decode

COLOR = synthetic.image(7, 9)
GRAY = synthetic.image(7, 9, 1)[..., 0]
DEEP = (np.arange(63, dtype=np.uint16).reshape(7, 9) * 1040).astype(np.uint16)


def encoded(image, kind='png', **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def palette(**options):
    """A palette of four colors, of which the first is transparent in the options."""
    image = Image.fromarray((np.arange(63) % 4).astype(np.uint8).reshape(7, 9), 'L').convert('P')
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.putdata([value % 4 for value in range(63)])
    return encoded(image, **options)


PALETTE = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)[np.arange(63) % 4].reshape(7, 9, 3)
ALPHA = np.concatenate([COLOR, GRAY[..., None]], axis=2)
EXIF = Image.Exif()
EXIF[0x0112] = 6  # to be rotated by 90 degrees for display


@pytest.mark.parametrize(
    ('file', 'expected'),
    [
        (encoded(COLOR), COLOR),
        (encoded(COLOR, 'webp', lossless=True), COLOR),
        (encoded(COLOR, 'bmp'), COLOR),
        (encoded(GRAY), np.repeat(GRAY[..., None], 3, axis=2)),
        (encoded(Image.fromarray(GRAY > 128)), np.repeat(np.uint8(255) * (GRAY > 128)[..., None], 3, axis=2)),
        (palette(), PALETTE),
        (palette(transparency=0), PALETTE),
        (palette(transparency=bytes([0, 128, 255, 255])), PALETTE),
        (encoded(ALPHA), COLOR),
        (encoded(COLOR, transparency=tuple(int(v) for v in COLOR[0, 0])), COLOR),
        (encoded(Image.fromarray(GRAY).convert('LA')), np.repeat(GRAY[..., None], 3, axis=2)),
        (encoded(GRAY, transparency=int(GRAY[0, 0])), np.repeat(GRAY[..., None], 3, axis=2)),
        (encoded(DEEP), np.repeat((DEEP >> 8).astype(np.uint8)[..., None], 3, axis=2)),
        (encoded(DEEP, 'tiff'), np.repeat((DEEP >> 8).astype(np.uint8)[..., None], 3, axis=2)),
        (encoded(DEEP.astype(np.int32), 'tiff'), np.repeat((DEEP >> 8).astype(np.uint8)[..., None], 3, axis=2)),
        (encoded(COLOR, 'png', exif=EXIF), COLOR),
        (encoded(COLOR, 'webp', lossless=True, exif=EXIF.tobytes()), COLOR),
        (encoded(COLOR, 'tiff', exif=EXIF), np.rot90(COLOR, -1)),
        (encoded(COLOR, save_all=True, append_images=[Image.fromarray(255 - COLOR)]), COLOR),
        (encoded(COLOR[:, :1]), COLOR[:, :1]),
        (encoded(COLOR[:1]), COLOR[:1]),
        (encoded(COLOR[:1, :1]), COLOR[:1, :1]),
    ],
    ids=[
        *('color', 'webp', 'bmp', 'gray', 'one_bit', 'palette', 'palette_transparent', 'palette_alpha', 'alpha'),
        *('transparent_color', 'gray_alpha', 'gray_transparent', 'sixteen_bits', 'sixteen_bits_tiff', 'integers'),
        *('exif', 'exif_webp', 'exif_tiff', 'animation', 'one_wide', 'one_high', 'one_pixel'),
    ],
)
def test_lossless_files_give_their_pixels(file, expected):
    found = decode(file)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    gray = decode(file, channels=1)
    assert gray.shape == (*expected.shape[:2], 1)
    luma = expected @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray[..., 0] - luma).max() <= 1


def test_an_animated_gif_gives_its_first_frame():
    frames = [Image.fromarray(np.full((7, 9), value, np.uint8)) for value in (40, 200)]
    found = decode(encoded(frames[0], 'gif', save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(found, np.full((7, 9, 3), 40))


def test_cmyk_jpegs_are_converted():
    cmyk = Image.fromarray(np.full((16, 16, 3), (200, 40, 90), np.uint8)).convert('CMYK')
    found = decode(encoded(cmyk, 'jpeg', quality=100))
    np.testing.assert_allclose(found, np.broadcast_to([200, 40, 90], (16, 16, 3)), atol=3)


def test_a_rotated_jpeg_stays_as_it_is_stored():
    image = synthetic.image(16, 32)
    found = decode(encoded(image, 'jpeg', exif=EXIF))
    np.testing.assert_array_equal(found, decode(encoded(image, 'jpeg')))
    assert found.shape == (16, 32, 3)


JPEG = encoded(synthetic.image(64, 64), 'jpeg')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (JPEG[: len(JPEG) // 2], r'x\.jpg is damaged \(.*truncated'),
        (encoded(COLOR)[:60], r'x\.jpg (is damaged|cannot be decoded)'),
        (b'', r'x\.jpg is not an image'),
        (b'no image at all', r'x\.jpg is not an image'),
        (JPEG[:2], r'x\.jpg is not an image'),
    ],
)
def test_files_that_are_no_images_are_refused_in_one_line(content, message, tmp_path):
    path = tmp_path / 'x.jpg'
    path.write_bytes(content)
    for image in (path, content):
        with pytest.raises(
            InputError, match=message if image is path else message.replace(r'x\.jpg', 'the image')
        ) as error:
            decode(image)
        assert '\n' not in str(error.value)


def test_files_that_cannot_be_read_and_bombs_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r'could not read .*absent\.png: No such file'):
        decode(tmp_path / 'absent.png')
    with pytest.raises(InputError, match='could not read this: Is a directory'):
        decode(tmp_path, name='this')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    with pytest.raises(InputError, match=r'cannot be decoded: .*decompression bomb'):
        decode(encoded(COLOR))

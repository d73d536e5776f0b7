"""Image files as arrays: every format that Pillow reads, in one number of channels."""

import io
import os
import pathlib

import numpy as np

from rfn_jax.core import errors

MODES = {1: 'L', 3: 'RGB'}
SIXTEEN_BITS = ('I;16', 'I;16B', 'I;16L', 'I')


def decode(encoded: bytes | os.PathLike[str], *, channels: int = 3, name: str = '') -> np.ndarray:
    """Decodes an image with Pillow, as torchvision's `ImageFolder` does where that is well-defined.

    ==========================  ===============================================================
    image                       result
    ==========================  ===============================================================
    gray                        the same values in all channels
    CMYK                        converted to RGB
    palette, or transparent     its colors; transparency is dropped, not blended
    16 bits a channel           scaled to 8 bits, rounded down (torchvision clips such images)
    EXIF orientation            ignored: pixels stay as they are stored; Pillow obeys that of a TIFF
    animation                   its first frame
    one pixel wide or high      as it is
    truncated, not an image     an error
    ==========================  ===============================================================

    Args:
      encoded: The contents of an image file, or its path.
      channels: 3 for color, or 1 for gray (the luma of ITU-R 601-2 for color images).
      name: What to call the image in messages; by default its path.

    Returns:
      uint8 `[H, W, channels]`.

    Raises:
      InputError: The file cannot be read, is not an image, is damaged, or is so large that decoding it is unsafe.
    """
    from PIL import Image  # takes a moment, and data sets of arrays do not need it

    path = None if isinstance(encoded, bytes) else os.fspath(encoded)
    name = name or path or 'the image'
    try:
        with Image.open(io.BytesIO(encoded if path is None else pathlib.Path(path).read_bytes())) as image:
            return _pixels(image, channels)
    except OSError as error:
        if error.errno is not None:
            raise errors.InputError(f'could not read {name}: {error.strerror}') from error
        kind = 'is not an image' if isinstance(error, Image.UnidentifiedImageError) else f'is damaged ({error})'
        raise errors.InputError(f'{name} {kind}') from error
    except Exception as error:  # damaged files raise many types of errors
        raise errors.InputError(f'{name} cannot be decoded: {error or type(error).__name__}') from error


def _pixels(image, channels: int) -> np.ndarray:
    """The pixels of a Pillow image."""
    if image.mode in SIXTEEN_BITS:
        gray = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
        return np.repeat(gray.astype(np.uint8)[..., None], channels, axis=2)
    if image.mode == 'P' or 'transparency' in image.info:
        image = image.convert('RGBA')
    pixels = np.asarray(image.convert(MODES[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)

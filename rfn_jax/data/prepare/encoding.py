"""Checks an encoded image by decoding it, and shrinks it if it is too large."""

import io
import warnings

from rfn_jax.core import errors
from rfn_jax.data import decoding, resizing

QUALITY = 95  # of JPEG


def checked(encoded: bytes, name: str, *, channels: int, max_side: int | None) -> tuple[bytes, tuple[int, int]]:
    """Decodes an image, and shrinks it if asked to.

    Args:
      encoded: The contents of an image file.
      name: What to call it in messages.
      channels: 3 for color, 1 for gray.
      max_side: See `Options`.

    Returns:
      `(encoded, (height, width))`: the same bytes, or those of a smaller JPEG.

    Raises:
      InputError: It is damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about odd metadata, of images that can be decoded
        image = decoding.decode(encoded, channels=channels, name=name)
    height, width = image.shape[:2]
    shorter = min(height, width)
    if max_side is None or shorter <= max_side:
        return encoded, (height, width)

    from PIL import Image

    height, width = int(max_side * height / shorter), int(max_side * width / shorter)
    small = resizing.resized(image, height, width, 'bicubic')
    content = io.BytesIO()
    try:
        Image.fromarray(small[..., 0] if channels == 1 else small).save(content, 'JPEG', quality=QUALITY)
    except (OSError, ValueError) as error:  # longer than a JPEG can be
        raise errors.InputError(f'{name} cannot be stored as JPEG of {height} x {width} pixels ({error})') from error
    return content.getvalue(), (height, width)

"""The example images of the report as PNG data URIs, and their perturbations amplified so that they are visible."""

import base64
import io
from collections.abc import Iterable

import numpy as np

_MID_GRAY = 128


def data_uri(image: np.ndarray) -> str:
    """A uint8 image `[H, W, C]`, with C 1 or 3, as a PNG in a `data:` URI."""
    import matplotlib.image

    content = io.BytesIO()
    color = np.broadcast_to(image, (*image.shape[:2], 3))
    matplotlib.image.imsave(content, color, format='png', origin='upper', metadata={'Software': None})
    return f'data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}'


def amplification(clean: np.ndarray, adversarial: Iterable[np.ndarray]) -> int:
    """The largest integer factor at which every perturbation, added to mid gray, stays within the range of a uint8 image.

    Args:
      clean: uint8 images `[N, H, W, C]`.
      adversarial: Arrays of the same shape as `clean`.

    Returns:
      The factor, at least 1: the same for all images, so that they can be compared.
    """
    largest = max((int(np.abs(_difference(clean, images)).max(initial=0)) for images in adversarial), default=0)
    return max(1, (255 - _MID_GRAY) // max(1, largest))


def perturbation(clean: np.ndarray, adversarial: np.ndarray, factor: int) -> np.ndarray:
    """The difference `adversarial - clean` times `factor`, added to mid gray, as a uint8 image."""
    return np.clip(_MID_GRAY + factor * _difference(clean, adversarial), 0, 255).astype(np.uint8)


def _difference(clean: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
    return adversarial.astype(np.int32) - clean.astype(np.int32)

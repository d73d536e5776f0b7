"""A few images of ImageNet's validation set, for tests with trained networks, prepared as networks are usually evaluated.

The folder has the file `wnids.txt`, with the WordNet identifiers of the 1000 classes in the order of the logits, one a line,
and images in `val/<identifier>/`. This module needs only NumPy and Pillow.
"""

import pathlib

import numpy as np
from PIL import Image


def read(folder: pathlib.Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The images, `[B, size, size, 3]` in [0, 1] as float32, and their classes, in the order of the names of the files.

    The short side of each image is resized to `size / 0.875` (bicubic), and the center is cut out.
    """
    classes = {name: index for index, name in enumerate((folder / 'wnids.txt').read_text().split())}
    paths = sorted(folder.glob('val/*/*.JPEG'))
    images = np.stack([_prepare(path, size) for path in paths])
    return images, np.array([classes[path.parent.name] for path in paths])


def _prepare(path: pathlib.Path, size: int) -> np.ndarray:
    with Image.open(path) as file:
        image = file.convert('RGB')
    scale = round(size / 0.875) / min(image.size)
    width, height = (round(scale * length) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)), np.float32) / 255

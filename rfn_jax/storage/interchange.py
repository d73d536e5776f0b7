"""Adversarial images in the formats of other tools: a folder of PNG files with `labels.csv`, and plain `.npz` files.

The folder has the layout of TransferAttack: `images/<id>.png`, and `labels.csv` with the columns `filename` and `label`.
Formats with lossy compression are refused, because they change the images.
"""

import dataclasses
import os
from io import BytesIO

import numpy as np
from etils import epath
from PIL import Image

from rfn_jax.core import errors, io, tables
from rfn_jax.storage import adversarial_set


@dataclasses.dataclass(frozen=True)
class LabelRow:
    """One row of `labels.csv`: the name of an image file and its class."""

    filename: str
    label: int


def write_folder(adversarial: adversarial_set.AdversarialSet, directory: os.PathLike[str] | str) -> None:
    """Writes `images/<id>.png` for each image, then `labels.csv`.

    Raises:
      InputError: The images have neither 1 nor 3 channels.
      RunError: The directory cannot be written.
    """
    if adversarial.images.shape[-1] not in (1, 3):
        raise errors.InputError(f'PNG files hold 1 or 3 channels, got {adversarial.images.shape[-1]}')
    folder, rows = epath.Path(directory), []
    for image, number, label in zip(adversarial.images, adversarial.ids, adversarial.labels, strict=True):
        content, name = BytesIO(), f'{number:06d}.png'
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(content, format='PNG')
        io.write_bytes(folder / 'images' / name, content.getvalue())
        rows.append(LabelRow(name, int(label)))
    tables.write(folder / 'labels.csv', LabelRow, rows)


def read_folder(directory: os.PathLike[str] | str) -> adversarial_set.AdversarialSet:
    """Reads a folder with `labels.csv` and PNG files, which are in `images/` or next to `labels.csv`.

    The ids are the numbers that the files are named after or, if not all names are numbers, 0, 1, ... in the order of
    `labels.csv`. Additional columns are ignored.

    Raises:
      InputError: A file is missing, is not a PNG file, differs in size from the first, or has no integer label.
    """
    folder = epath.Path(directory)
    rows = tables.read(folder / 'labels.csv', LabelRow)
    if not rows:
        raise errors.InputError(f'{folder / "labels.csv"} lists no images')
    images, stems = [], []
    for row in rows:
        inside, beside = folder / 'images' / row.filename, folder / row.filename
        path = inside if inside.exists() else beside
        images.append(_read_png(path))
        if images[-1].shape != images[0].shape:
            raise errors.InputError(f'{path} is {images[-1].shape}, but the first image is {images[0].shape}')
        stems.append(path.stem)
    ids = [int(stem) for stem in stems] if all(stem.isdecimal() for stem in stems) else range(len(stems))
    return adversarial_set.AdversarialSet(
        images=np.stack(images),
        ids=np.asarray(ids, np.int64),
        labels=np.asarray([row.label for row in rows], np.int32),
        origin={'folder': str(directory)},
    )


def read_npz(path: os.PathLike[str] | str) -> adversarial_set.AdversarialSet:
    """Reads a `.npz` file with `images` and `labels`, and `ids` if it has them; nothing is unpickled.

    Images are uint8, or floats in [0, 1], which are rounded to the nearest of 256 levels. Their shape is `[N, H, W, C]`, or
    `[N, C, H, W]` if only the second axis has size 1 or 3.

    Raises:
      InputError: It cannot be read, an array is missing, or values or shapes are invalid.
    """
    try:
        with io.npz_arrays(epath.Path(path).read_bytes()) as arrays:
            images, labels = arrays['images'], arrays['labels']
            ids = arrays['ids'] if 'ids' in arrays else np.arange(len(labels))
    except io.DAMAGED as error:
        raise errors.InputError(f'could not read images and labels from {path}: {error}') from error
    if images.ndim != 4 or labels.shape != images.shape[:1] or ids.shape != labels.shape:
        raise errors.InputError(
            f'{path} must hold images [N, H, W, C] with N labels, got {images.shape} and {labels.shape}'
        )
    if not np.issubdtype(ids.dtype, np.integer) or np.any(labels != labels.astype(np.int32)):
        raise errors.InputError(f'ids and labels in {path} must be 32-bit integers, got {ids.dtype} and {labels.dtype}')
    if images.shape[-1] not in (1, 3) and images.shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if np.issubdtype(images.dtype, np.floating):
        if not (images.size and images.min() >= 0 and images.max() <= 1):
            raise errors.InputError(f'floats in {path} must be in [0, 1]')
        images = np.rint(images.astype(np.float64) * 255).astype(np.uint8)
    if images.dtype != np.uint8 or not np.issubdtype(labels.dtype, np.integer):
        raise errors.InputError(
            f'{path} must hold uint8 or float images and integer labels, got {images.dtype} and {labels.dtype}'
        )
    return adversarial_set.AdversarialSet(images, ids.astype(np.int64), labels.astype(np.int32), {'file': str(path)})


def _read_png(path: epath.Path) -> np.ndarray:
    """Reads an image as uint8 `[H, W, C]`."""
    try:
        with Image.open(BytesIO(path.read_bytes()), formats=['PNG']) as image:
            if image.mode not in ('L', 'RGB', 'P', '1'):
                raise ValueError(
                    f'its mode is {image.mode}; only 8-bit gray and RGB images without transparency can be read'
                )
            pixels = np.asarray(image if image.mode == 'L' else image.convert('RGB'))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise errors.InputError(f'could not read the PNG file {path}: {error}') from error
    return pixels[..., None] if pixels.ndim == 2 else pixels

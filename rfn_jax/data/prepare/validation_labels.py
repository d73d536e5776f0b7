"""The classes of the validation images of ImageNet, from the text files that they come in."""

import pathlib
import re
from collections.abc import Sequence

from rfn_jax.core import errors
from rfn_jax.data import class_lists

OFFICIAL_COUNT = 50_000


def read(path: str, ids_path: str, images: Sequence[str]) -> list[str]:
    """Returns the class of each validation image.

    The file has one of these forms, told apart by its first line:

    =====================  ===========================================================================================
    `490`                  Line i: the ILSVRC2012 id of the class of image i, from 1, as in the development kit's
                           `ILSVRC2012_validation_ground_truth.txt`. The order of these ids is not that of the WordNet
                           ids, so `ids_path` must name the classes.
    `n01751748`            Line i: the class of image i, as in `imagenet_2012_validation_synset_labels.txt`.
    `NAME CLASS`           The name of an image, with or without extension, and its class, in any order of lines,
                           separated by spaces, a tab or a comma; further columns are ignored, and so is a first line
                           that starts with `ImageId`: Kaggle's `LOC_val_solution.csv` has this form.
    =====================  ===========================================================================================

    Args:
      path: The file; if empty, the classes that TFDS has for the 50 000 official images.
      ids_path: The development kit's `meta.mat`, or a text file with the class of each ILSVRC2012 id, one a line.
      images: The names of the images, sorted.

    Raises:
      InputError: A file cannot be read, an image has no class, or a number stands for none.
    """
    if not path:
        return _official(images)
    lines = [re.split(r'[\s,]+', line.strip()) for line in _text(path).splitlines() if line.strip()]
    if lines and lines[0][0] == 'ImageId':
        del lines[0]
    if not lines:
        raise errors.InputError(f'{path} has no labels')
    if len(lines[0]) > 1:
        return _by_name(path, lines, images)
    labels = [line[0] for line in lines]
    if len(labels) != len(images):
        raise errors.InputError(f'{path} has {len(labels)} labels, but there are {len(images)} validation images')
    return _by_number(path, labels, ids_path) if labels[0].isdecimal() else labels


def _text(path: str) -> str:
    try:
        return pathlib.Path(path).expanduser().read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InputError(f'could not read the labels {path}: {error}') from error


def _official(images: Sequence[str]) -> list[str]:
    """The classes that TFDS has for the official images."""
    import tensorflow_datasets as tfds

    if list(images) != [f'ILSVRC2012_val_{number:08d}.JPEG' for number in range(1, OFFICIAL_COUNT + 1)]:
        raise errors.InputError(
            f'the {len(images)} validation images are not the {OFFICIAL_COUNT} of ILSVRC2012: give a file with their labels '
            '(--validation_labels)'
        )
    return _text(tfds.core.tfds_path('datasets/imagenet2012/validation_labels.txt')).split()


def _by_name(path: str, lines: list[list[str]], images: Sequence[str]) -> list[str]:
    """The class of each image from lines that name them."""
    stems = {name.split('.')[0]: name for name in images}
    labels: dict[str, str] = {}
    for name, *label in lines:
        stem = name.split('.')[0]
        if not label:
            raise errors.InputError(
                f'{path} must have the name of an image and its class on each line, but has {name!r}'
            )
        if stem not in stems or stem in labels:
            raise errors.InputError(
                f'{path} has a label for {name!r}, which is not a validation image or is listed twice'
            )
        labels[stem] = label[0]
    if missing := next((stem for stem in stems if stem not in labels), None):
        raise errors.InputError(f'{path} has no label for {stems[missing]!r}')
    return [labels[stem] for stem in stems]


def _by_number(path: str, numbers: list[str], ids_path: str) -> list[str]:
    """The classes that ILSVRC2012 ids stand for."""
    if not ids_path:
        raise errors.InputError(
            f'{path} has numbers, whose order is not that of the WordNet ids: give the meta.mat of the development kit, or a '
            'text file with the class of each number (--validation_ids)'
        )
    by_number = _meta(ids_path) if ids_path.endswith('.mat') else dict(enumerate(class_lists.read(ids_path), start=1))
    for number in numbers:
        if not number.isdecimal() or len(number) > 9 or int(number) not in by_number:
            raise errors.InputError(f'{path} has the class {number[:80]!r}, which {ids_path} does not have')
    return [by_number[int(number)] for number in numbers]


def _meta(path: str) -> dict[int, str]:
    """The WordNet id of each ILSVRC2012 id."""
    import scipy.io

    try:
        synsets = scipy.io.loadmat(path, squeeze_me=True)['synsets']
        numbers, names = synsets['ILSVRC2012_ID'], synsets['WNID']
        return {int(number): str(name) for number, name in zip(numbers, names, strict=True)}
    except Exception as error:  # damaged files raise many types of errors
        raise errors.InputError(
            f'could not read {path} as the meta.mat of ILSVRC2012 ({type(error).__name__})'
        ) from error

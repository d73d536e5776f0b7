"""Lists the images of a folder for `prepare`, by the rules of the source `image_folder`."""

import pathlib

import numpy as np

from rfn_jax.core import checks, errors
from rfn_jax.data import folder_source
from rfn_jax.data.prepare import images as images_lib


def read(directory: str, *, classes: str = '', test_fraction: float = 0.2) -> images_lib.Listing:
    """Lists the images of a folder; `image_folder` says how it is laid out.

    Folders of splits keep their meaning: next to `train`, a folder `val` becomes the split `validation`, as in TFDS. In a
    folder of classes, test images are held out; they are those that `image_folder` holds out. Images for validation are not
    held out: the source `tfds` takes them from the end of `train`.

    Args:
      directory: The folder.
      classes: As for `image_folder`.
      test_fraction: Fraction of the images to hold out for testing, if there are no folders of splits.

    Raises:
      InputError: As for `image_folder`.
    """
    checks.number('test_fraction', test_fraction, above=0, below=0.5)
    root = pathlib.Path(directory).expanduser().absolute()
    names, files = folder_source.listed(root, classes)
    splits = {_split_name(split, files): _images(files[split]) for split in files}
    origin: dict[str, str | float] = {'images': str(root)}
    if list(splits) == ['train']:
        origin['test_fraction'] = test_fraction
        splits = images_lib.hold_out_test(splits['train'], test_fraction)
    return images_lib.Listing(origin, tuple(names), splits)


def _split_name(split: str, files: dict[str, folder_source.ImageFiles]) -> str:
    """The name of a split in TFDS; images from a folder `val` that are for testing are called `validation` there."""
    is_validation = pathlib.Path(files[split].directory).name in folder_source.HELD_OUT
    return 'validation' if split == 'test' and is_validation else split


def _images(files: folder_source.ImageFiles) -> images_lib.Images:
    root = pathlib.Path(files.directory)
    try:
        sizes = np.asarray([(root / path).stat().st_size for path in files.paths], np.int64)
    except OSError as error:
        raise errors.InputError(f'could not read {error.filename}: {error.strerror}') from error
    return images_lib.Images(str(root), files.paths, files.labels, files.ids, sizes)

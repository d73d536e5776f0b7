"""Where `prepare` puts a data set."""

import pathlib
import re

from rfn_jax.core import checks, errors, io
from rfn_jax.data.prepare import images as images_lib

VERSION = '1.0.0'


def of(out: str, name: str) -> pathlib.Path:
    """Returns the folder of a data set, `out/name/1.0.0`.

    Args:
      out: The folder of all data sets, as TFDS has it, on a local disk.
      name: Name of the data set: lowercase letters, digits and `_`; not one that TFDS has itself, whose version and classes
        TFDS would expect.

    Raises:
      InputError: The folder or the name is not allowed.
    """
    import tensorflow_datasets as tfds

    checks.string('out', out, 'a folder')
    if io.is_remote(out):
        raise errors.InputError(f'out must be a local folder, got {out}: prepare the data set on a disk and copy it')
    if not isinstance(name, str) or not re.fullmatch(r'[a-z][a-z0-9_]*', name):
        raise errors.InputError(f'name must be lowercase letters, digits and _, and start with a letter, got {name!r}')
    if name in tfds.list_builders(with_community_datasets=False):
        raise errors.InputError(f'TFDS has a data set {name!r} of its own: choose another name, such as my_{name}')
    return pathlib.Path(out).expanduser().absolute() / name / VERSION


def check_outside(directory: pathlib.Path, listing: images_lib.Listing) -> None:
    """Checks that a data set will not be in the folder of its images, which would then have another class.

    Raises:
      InputError: It would be.
    """
    images = listing.origin.get('images')
    if images is not None and directory.resolve().is_relative_to(pathlib.Path(str(images)).resolve()):
        raise errors.InputError(f'{directory} is in the folder of the images, {images}: choose another out')

"""Lists the images of the archives of ImageNet for `prepare`; nothing is extracted.

`ILSVRC2012_img_train.tar` holds a tar file for each class, such as `n01440764.tar`, and `ILSVRC2012_img_val.tar` holds
images. Neither is compressed, so an image can be read where it is.
"""

import contextlib
import os
import pathlib
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rfn_jax.core import checks, errors
from rfn_jax.data import class_lists, folder_source
from rfn_jax.data.prepare import images as images_lib
from rfn_jax.data.prepare import validation_labels as labels_lib


class Member(NamedTuple):
    """A file in an archive: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


def read(
    train: str,
    validation: str = '',
    *,
    validation_labels: str = '',
    validation_ids: str = '',
    classes: str = '',
    test_fraction: float = 0.2,
) -> images_lib.Listing:
    """Lists the images of the archives of ImageNet, or of others that are laid out in the same way.

    The data set is the same as from a folder with the same images as `train/n01440764/n01440764_18.JPEG` and
    `val/n01440764/ILSVRC2012_val_00000293.JPEG`.

    Args:
      train: A tar file that holds a tar file for each class.
      validation: A tar file of images. By default, test images are held out from the training images.
      validation_labels: The classes of these images; see `validation_labels.read`.
      validation_ids: The classes that numbers in that file stand for.
      classes: A text file with the classes in the order of the labels, such as WordNet ids, one a line; a longer name may
        follow after a space. By default the classes of `train`, sorted.
      test_fraction: Fraction of the training images to hold out for testing if there are no others.

    Raises:
      InputError: An archive cannot be read, is cut off or compressed, or holds something else; a class is unknown; or there
        are fewer than 2 classes.
    """
    checks.number('test_fraction', test_fraction, above=0, below=0.5)
    if not validation and (validation_labels or validation_ids):
        raise errors.InputError('labels of validation images were given, but no archive of validation images')
    if validation:  # before the long list of the training images
        held_out = sorted(_validation_images(validation))
        labels = labels_lib.read(validation_labels, validation_ids, [member.name for member in held_out])
    by_class = _classes(train)
    names = list(class_lists.read(classes)) if classes else sorted(by_class)
    if unknown := next((name for name in by_class if name not in names), None):
        raise errors.InputError(f'{train} has the class {unknown!r}, which {classes} does not have')
    if len(names) < 2:
        raise errors.InputError(f'{train} has {len(names)} classes; at least 2 are needed')
    members = [(name, member) for name in by_class for member in by_class[name]]
    images = _ordered(train, 'train', members, names)
    origin: dict[str, str | float] = {'train_archive': os.path.abspath(train)}
    if not validation:
        origin['test_fraction'] = test_fraction
        return images_lib.Listing(origin, tuple(names), images_lib.hold_out_test(images, test_fraction))
    for label, member in zip(labels, held_out, strict=True):
        if label not in by_class:
            raise errors.InputError(
                f'{member.name!r} of {validation} has the class {label!r}, which {train} does not have'
            )
    origin['validation_archive'] = os.path.abspath(validation)
    # As for an image folder, the id of an image tells what it is for: testing.
    splits = {
        'train': images,
        'validation': _ordered(validation, 'test', list(zip(labels, held_out, strict=True)), names),
    }
    return images_lib.Listing(origin, tuple(names), splits)


def _classes(path: str) -> dict[str, list[Member]]:
    """The images of each class of the training archive."""
    found: dict[str, list[Member]] = {}
    with _reading(path), open(path, 'rb') as file, tarfile.open(fileobj=file, mode='r:') as outer:
        for member in _files(outer, path):
            name, extension = os.path.splitext(_base(member))
            if extension != '.tar' or name in found:
                raise errors.InputError(f'{path} must hold one .tar file for each class, but holds {member.name!r}')
            within = f'{member.name!r} of {path}'
            with _reading(within), tarfile.open(fileobj=outer.extractfile(member), mode='r:') as inner:
                found[name] = _images(inner, within, member.offset_data)
    return found


def _validation_images(path: str) -> list[Member]:
    """The images of the validation archive."""
    with _reading(path), open(path, 'rb') as file, tarfile.open(fileobj=file, mode='r:') as archive:
        return _images(archive, path, 0)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Reports what goes wrong while the body reads a tar file."""
    try:
        yield
    except errors.InputError:
        raise
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise errors.InputError(
            f'{name} is cut off or damaged, or is not an uncompressed tar file ({error})'
        ) from error
    except OSError as error:
        raise errors.InputError(f'could not read {name}: {error.strerror or error}') from error


def _images(archive: tarfile.TarFile, name: str, start: int) -> list[Member]:
    """The images of an archive that starts at `start`."""
    files = [file for file in _files(archive, name) if file.name.lower().endswith(folder_source.EXTENSIONS)]
    if not files:
        raise errors.InputError(f'{name} has no image ({", ".join(folder_source.EXTENSIONS)})')
    return [Member(_base(file), start + file.offset_data, file.size) for file in files]


def _files(archive: tarfile.TarFile, name: str) -> Iterator[tarfile.TarInfo]:
    """The files of an archive; folders and names that start with a dot are left out."""
    for member in archive:
        if member.isdir():
            continue
        if not member.isreg() or member.issparse() or member.size < 0:
            raise errors.InputError(f'{member.name!r} in {name} is not a plain file')
        if not _base(member).startswith('.'):
            yield member
    # Python's tarfile takes a missing end, or anything that is not a header, for the end.
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError('the end is missing')


def _base(member: tarfile.TarInfo) -> str:
    return pathlib.PurePosixPath(member.name).name


def _ordered(path: str, role: str, members: list[tuple[str, Member]], names: list[str]) -> images_lib.Images:
    """The images of a split, ordered by id, from the class and the place of each."""
    positions = {name: label for label, name in enumerate(names)}
    paths = [f'{name}/{member.name}' for name, member in members]
    ids = np.asarray([folder_source.path_id(f'{role}/{path}') for path in paths], np.int64)
    order = np.argsort(ids)
    same = np.flatnonzero(np.diff(ids[order]) == 0)
    if same.size:
        raise errors.InputError(f'{path} has two images {paths[order[same[0]]]!r}')
    return images_lib.Images(
        os.path.abspath(path),
        paths,
        np.asarray([positions[name] for name, _ in members], np.int32),
        ids,
        np.asarray([member.size for _, member in members], np.int64),
        np.asarray([member.offset for _, member in members], np.int64),
    ).take(order)

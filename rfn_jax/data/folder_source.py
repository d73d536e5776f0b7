"""A folder of image files, one subfolder a class, such as ImageNet or a user's own pictures."""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from rfn_jax.core import checks, digests, errors
from rfn_jax.data import class_lists, decoding, resized, resizing, sources
from rfn_jax.data import info as info_lib

EXTENSIONS = ('.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
# Names of the folders of splits. Where there is one besides the training images, it is for testing, as on ImageNet.
TRAIN, HELD_OUT, TEST = ('train', 'training'), ('validation', 'val', 'valid'), ('test',)


class ImageFiles:
    """Image files of any size with their labels, decoded when they are accessed.

    Args:
      directory: The folder that the paths start from.
      paths: Paths of N files, relative to `directory`.
      labels: int32 `[N]`.
      ids: int64 `[N]`; see `path_id`.
      channels: 3 for color, 1 for gray.
      source: Where the images come from, such as `'pets/train'`.
    """

    def __init__(
        self, directory: str, paths: list[str], labels: np.ndarray, ids: np.ndarray, *, channels: int, source: str
    ):
        self.source, self.ids, self.labels, self.paths = source, ids, labels, paths
        self.directory, self._channels = directory, channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> sources.Record:
        image = decoding.decode(pathlib.Path(self.directory, self.paths[position]), channels=self._channels)
        return sources.Record(image, self.labels[position], self.ids[position])

    def take(self, positions: np.ndarray) -> 'ImageFiles':
        """The files at `positions`, in that order."""
        paths = [self.paths[position] for position in positions]
        options = {'channels': self._channels, 'source': self.source}
        return ImageFiles(self.directory, paths, self.labels[positions], self.ids[positions], **options)


@sources.SOURCES.register
def image_folder(
    *,
    directory: str,
    image_size: int = 224,
    resize: int | None = None,
    interpolation: str = 'bilinear',
    channels: int = 3,
    classes: str = '',
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    train_examples: int | None = None,
    validation_examples: int | None = None,
    test_examples: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    listing_sha256: str | None = None,
) -> sources.Splits:
    """Image files in a folder for each class: `directory/class/image.jpg`, or `directory/train/class/image.jpg` and so on.

    The folder can hold splits or classes:

    * `train`, `validation` (or `val`) and `test`: those are the splits.
    * `train` and one of the others, as on ImageNet: the other one is for testing, and validation images are held out from
      `train`.
    * Classes: validation and test images are held out from all of them.

    An image is held out if the hash of its path falls in the share that is reserved, so adding images later does not move any
    image to another split. The id of an example is the first 63 bits of the SHA-256 of its path, and examples are ordered by
    their ids, which mixes the classes. Files with other extensions, and files and folders whose names start with a dot, are
    ignored; images may be in subfolders of the folder of their class.

    Args:
      directory: The folder.
      image_size: Height and width of the images that networks get; see `ResizeAndCrop`.
      resize: Length of the shorter side before the center crop; by default 8/7 of `image_size` (256 for 224).
      interpolation: `'bilinear'` or `'bicubic'`.
      channels: 3 for color, 1 for gray.
      classes: A text file with the folder name of each class in the order of the labels, one a line, such as the WordNet ids
        of ImageNet; a longer name may follow after a space. A class may have no folder. By default the names of the
        folders, sorted.
      validation_fraction: Fraction of the images to hold out for validation, if no folder has them.
      test_fraction: Fraction of the images to hold out for testing, if no folder has them.
      train_examples: Number of training examples to use, those with the lowest ids; by default all.
      validation_examples: The same for validation.
      test_examples: The same for testing.
      mean: Mean of each channel of the training images, in [0, 1]; by default that of ImageNet.
      std: Standard deviation of each channel; by default that of ImageNet.
      listing_sha256: Hash that the list of files must have; if None, any is accepted. A work directory keeps the hash of the
        folder that it was made with.

    Raises:
      InputError: The folder or the list of classes cannot be read; a class has no image, or is in another split but not in
        `train`; there are fewer than 2 classes; or a number is out of range.
    """
    checks.string('directory', directory, 'the path of a folder')
    root = pathlib.Path(directory).expanduser().absolute()
    size = checks.integer('image_size', image_size, at_least=1)
    transform = resizing.ResizeAndCrop(size, resizing.usual_resize(size) if resize is None else resize, interpolation)
    if channels not in decoding.MODES:
        raise errors.InputError(f'channels must be 1 or 3, got {channels!r}')
    names, files = listed(root, classes, channels)
    if listing_sha256 not in (None, actual := _listing_sha256(names, files.values())):
        raise errors.InputError(
            f'{root} has changed: the SHA-256 of its list of classes and files is {actual}, not {listing_sha256}; restore '
            'it, or choose another --workdir'
        )
    fractions = {'validation': validation_fraction, 'test': test_fraction}
    for split in fractions:
        checks.number(f'{split}_fraction', fractions[split], above=0, below=0.5)
        if split not in files:
            files['train'], files[split] = _hold_out(files['train'], split, fractions[split])
    counts = {'train': train_examples, 'validation': validation_examples, 'test': test_examples}
    splits = {
        split: resized.ResizedSource(_first(root, split, files[split], counts[split]), transform) for split in counts
    }
    usual_mean, usual_std = info_lib.natural_statistics(channels)
    info = info_lib.DataInfo(
        image_shape=(size, size, channels),
        class_names=tuple(names.values()),
        mean=tuple(mean or usual_mean),
        std=tuple(std or usual_std),
    )
    return sources.Splits(info, **splits)


def pinned_folder(spec: Mapping[str, object]) -> dict[str, object]:
    """A spec of the source with absolute paths, and with the hash of the list of files unless it already has one.

    Raises:
      InputError: As for `image_folder`.
    """
    spec = dict(spec)
    paths = {'directory': '', 'classes': ''}
    for option in paths:
        value = spec.get(option)
        if isinstance(value, str) and value:  # `image_folder` will report anything else
            spec[option] = paths[option] = str(pathlib.Path(value).expanduser().absolute())
    if 'listing_sha256' not in spec and paths['directory']:
        names, files = listed(pathlib.Path(paths['directory']), paths['classes'])
        spec['listing_sha256'] = _listing_sha256(names, files.values())
    return spec


def listed(root: pathlib.Path, classes: str = '', channels: int = 3) -> tuple[dict[str, str], dict[str, ImageFiles]]:
    """Lists the classes and the image files of a folder; see `image_folder`.

    Returns:
      `(names, files)`: the folder names of the classes in the order of the labels, each with the name to show, and the files
      of each split that has a folder, ordered by id.

    Raises:
      InputError: As for `image_folder`.
    """
    folders = _split_folders(root)
    names = _class_names(folders, classes)
    files = {
        split: _files(folder, split, list(names), classes, channels) for split, folder in folders.items() if folder
    }
    return names, files


def is_held_out(ids: np.ndarray, split: str, fraction: float) -> np.ndarray:
    """Which images are held out for a split: the lowest hashes for validation, and the highest ones for testing.

    Args:
      ids: int64 `[N]`; see `path_id`.
      split: `'validation'` or `'test'`.
      fraction: The expected fraction of them.

    Returns:
      Booleans `[N]`.
    """
    # The position in [0, 1) is taken from other bits than the order, so that the held-out images are not the first ones.
    share = (ids % 2**31) / 2**31
    return share < fraction if split == 'validation' else share >= 1 - fraction


def path_id(path: str) -> int:
    """The id of the image at a path relative to its data set: 63 bits of a hash.

    Raises:
      InputError: The path is not UTF-8.
    """
    try:
        return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], 'big') >> 1
    except UnicodeEncodeError as error:
        raise errors.InputError(f'the name of the image {path!r} is not UTF-8: rename it') from error


def _split_folders(root: pathlib.Path) -> dict[str, pathlib.Path | None]:
    """The folder of each split; None for a split that is held out from the training images."""
    if not root.is_dir():
        raise errors.InputError(f'image folder {root} {"is not a folder" if root.exists() else "does not exist"}')
    found = {}
    for split, names in (('train', TRAIN), ('validation', HELD_OUT), ('test', TEST)):
        present = [root / name for name in names if (root / name).is_dir()]
        if len(present) > 1:
            raise errors.InputError(f'{root} has several folders of one split: {", ".join(p.name for p in present)}')
        found[split] = present[0] if present else None
    if not found['train']:
        return {'train': root, 'validation': None, 'test': None}
    if not found['test']:
        found['validation'], found['test'] = None, found['validation']
    return found


def _class_folders(folder: pathlib.Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith('.'))
    except OSError as error:
        raise errors.InputError(f'could not read {folder}: {error.strerror}') from error


def _walk(folder: pathlib.Path, name: str) -> Iterator[str]:
    """The paths of the image files of a class, relative to the folder of its split, with forward slashes."""

    def refuse(error: OSError) -> None:
        raise errors.InputError(f'could not read {error.filename}: {error.strerror}') from error

    for parent, subfolders, files in os.walk(folder / name, onerror=refuse, followlinks=True):
        subfolders[:] = [subfolder for subfolder in subfolders if not subfolder.startswith('.')]
        relative = pathlib.Path(parent).relative_to(folder).as_posix()
        yield from (f'{relative}/{f}' for f in files if f.lower().endswith(EXTENSIONS) and not f.startswith('.'))


def _class_names(folders: Mapping[str, pathlib.Path | None], classes: str) -> dict[str, str]:
    """The folder names of the classes in the order of the labels, each with the name to show."""
    if classes:
        return class_lists.read(classes)
    names = _class_folders(folders['train'])
    if len(names) < 2:
        raise errors.InputError(f'{folders["train"]} has {len(names)} folders of classes; at least 2 are needed')
    return {name: name for name in names}


def _files(folder: pathlib.Path, split: str, names: list[str], classes: str, channels: int) -> ImageFiles:
    """The image files of a split, ordered by id."""
    positions = {name: label for label, name in enumerate(names)}
    paths, labels = [], []
    for name in _class_folders(folder):
        if name not in positions:
            raise errors.InputError(f'{folder / name} is a class that {classes or "the training set"} does not have')
        of_class = list(_walk(folder, name))
        if not of_class:
            raise errors.InputError(f'{folder / name} has no image ({", ".join(EXTENSIONS)})')
        paths += of_class
        labels += [positions[name]] * len(of_class)
    if not paths:
        raise errors.InputError(f'{folder} has no folders of classes')
    # The same image in another split has another id.
    ids = np.asarray([path_id(f'{split}/{path}') for path in paths])
    order = np.argsort(ids)
    if (np.diff(ids[order]) == 0).any():
        raise errors.InputError(f'two files of {folder} have the same hash; rename one of them')
    files = ImageFiles(
        str(folder), paths, np.asarray(labels, np.int32), ids, channels=channels, source=f'image_folder/{split}'
    )
    return files.take(order)


def _listing_sha256(names: Mapping[str, str], files: Iterable[ImageFiles]) -> str:
    return digests.of_plain([list(names), [[split.source, sorted(split.paths)] for split in files]])


def _hold_out(files: ImageFiles, split: str, fraction: float) -> tuple[ImageFiles, ImageFiles]:
    """Splits off the images that are held out for a split."""
    held_out = is_held_out(files.ids, split, fraction)
    return files.take(np.flatnonzero(~held_out)), files.take(np.flatnonzero(held_out))


def _first(root: pathlib.Path, split: str, files: ImageFiles, count: int | None) -> ImageFiles:
    """The first `count` files of a split, by default all of them."""
    if not len(files):
        raise errors.InputError(
            f'{root} has no image for {split}; add images, or change validation_fraction or test_fraction'
        )
    if count is None:
        return files
    return files.take(np.arange(checks.integer(f'{split}_examples', count, at_least=1, at_most=len(files))))

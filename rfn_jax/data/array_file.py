"""Labeled images of any origin, read from one `.npz` file of NumPy arrays."""

import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from rfn_jax.core import digests, errors
from rfn_jax.data import dataset, sources

# Names that a file may use for the arrays of a split; MedMNIST uses `val_`, and Keras uses `x_` and `y_`.
IMAGES = ('{}_images', 'x_{}')
LABELS = ('{}_labels', 'y_{}')
SPLITS = {'train': ('train',), 'validation': ('validation', 'val'), 'test': ('test',)}


@sources.SOURCES.register
def arrays(
    *,
    path: str,
    sha256: str | None = None,
    train_examples: int | None = None,
    validation_examples: int | None = None,
    test_examples: int | None = None,
    class_names: tuple[str, ...] = (),
) -> sources.Splits:
    """Images and labels of a `.npz` file with the arrays `train_images`, `train_labels`, `test_images`, `test_labels`.

    Images are uint8 `[N, H, W, C]` with 1 or 3 channels, or `[N, H, W]` if they are gray, of the same size in all splits;
    labels are integers `[N]` or `[N, 1]` in `[0, K)`. The names `x_train`, `y_train`, `x_test` and `y_test` also work. If the
    file has no `validation_images` and `validation_labels` (or `val_...`), the last training examples are held out for
    validation. Nothing is unpickled.

    The ids of the examples are their positions in the arrays of the file.

    Args:
      path: The file.
      sha256: Hash that the file must have; if None, any is accepted. A work directory keeps the hash of the file that it was
        made with.
      train_examples: Number of training examples, taken from the start; by default all that are not held out for validation.
      validation_examples: Number of validation examples: the first ones of the file's validation split, by default all of
        them; if it has none, the last ones of its training split, by default a tenth of them.
      test_examples: Number of test examples, taken from the start; by default all of them.
      class_names: Names of the K classes; by default those in the file (an array of strings `class_names`) or, if there are
        none, the numbers from 0 to the largest label.

    Raises:
      InputError: The file cannot be read or has a different hash, an array is missing or invalid, or a number is out of
        range.
    """
    if sha256 is not None and sha256 != (actual := digests.of_file(path)):
        raise errors.InputError(
            f'{path} has changed: its SHA-256 is {actual}, not {sha256}; restore it, or choose another --workdir'
        )
    archive = _read(path)
    splits = {name: _split(path, archive, name) for name in SPLITS}
    for name in ('train', 'test'):
        if splits[name] is None:
            raise errors.InputError(
                f'{path} has no array {name}_images; it holds {", ".join(sorted(archive)) or "nothing"}'
            )
    _check_shapes(path, splits)
    names = _class_names(path, archive, class_names, [labels for _, labels in filter(None, splits.values())])

    def take(name: str, positions: range) -> dataset.ImageDataset:
        images, labels = splits[name]
        chosen = slice(positions.start, positions.stop)
        where = f'{pathlib.Path(path).name}/{name}'
        return dataset.ImageDataset(images[chosen], labels[chosen], np.asarray(positions), names, where)

    count = len(splits['train'][0])
    if splits['validation'] is None:
        held_out = max(1, count // 10) if validation_examples is None else validation_examples
        if not 1 <= held_out < count:
            raise errors.InputError(
                f'{path} has {count} training examples and none for validation, which needs 1 to {count - 1} of them: '
                f'got validation_examples {held_out}'
            )
        count -= held_out
        validation = take('train', range(count, count + held_out))
    else:
        available = len(splits['validation'][0])
        validation = take('validation', _first_positions('validation', path, validation_examples, available))
    train = take('train', _first_positions('train', path, train_examples, count))
    return sources.Splits(
        info=train.info(),
        train=train,
        validation=validation,
        test=take('test', _first_positions('test', path, test_examples, len(splits['test'][0]))),
    )


def pinned_file(spec: Mapping[str, object]) -> dict[str, object]:
    """Returns a spec of the source with the absolute path of its file, and with its hash unless the spec already has one.

    Raises:
      InputError: The file cannot be read.
    """
    path = spec.get('path')
    if not isinstance(path, str) or not path:
        return dict(spec)  # `arrays` will report it
    path = str(pathlib.Path(os.path.expanduser(path)).absolute())
    return {'sha256': digests.of_file(path), **spec, 'path': path}


def _read(path: str) -> dict[str, np.ndarray]:
    """Reads the arrays of a `.npz` file."""
    try:
        if not zipfile.is_zipfile(path := os.path.expanduser(path)):
            pathlib.Path(path).open('rb').close()  # raises an OSError if that is the reason
            raise ValueError('it is not an archive of arrays')
        with np.load(path, allow_pickle=False) as file:
            archive = {name: file[name] for name in file.files}
        for name, array in archive.items():
            if not isinstance(array, np.ndarray):
                raise TypeError(f'{name} is not an array')
        return archive
    except OSError as error:
        raise errors.InputError(f'could not read {path!r}: {error.strerror or error}') from error
    except Exception as error:  # damaged archives and headers raise many types of errors
        reason = 'it holds Python objects' if 'allow_pickle' in str(error) else f'{error or type(error).__name__}'
        raise errors.InputError(f'{path} is not a .npz file of NumPy arrays: {reason}') from error


def _split(path: str, archive: Mapping[str, np.ndarray], split: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the images and labels of a split, in the form that `ImageDataset` takes; None if the file has neither."""
    pair = []
    for kind, names in (('images', IMAGES), ('labels', LABELS)):
        present = [name.format(s) for s in SPLITS[split] for name in names if name.format(s) in archive]
        if len(present) > 1:
            raise errors.InputError(f'{path} has {kind} of one split under several names: {", ".join(present)}')
        pair.append(archive[present[0]] if present else None)
    images, labels = pair
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        missing = 'images' if images is None else 'labels'
        raise errors.InputError(f'{path} has no array {split}_{missing}; it holds {", ".join(sorted(archive))}')
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3) or not images.size:
        raise errors.InputError(
            f'{split}_images of {path} must be uint8 [N, H, W, C] with 1 or 3 channels, got {images.dtype} {images.shape}'
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or labels.dtype.kind not in 'iu':
        raise errors.InputError(f'{split}_labels of {path} must be integers [N], got {labels.dtype} {labels.shape}')
    if len(images) != len(labels):
        raise errors.InputError(f'{path} has {len(images)} {split}_images and {len(labels)} {split}_labels')
    if labels.min() < 0 or labels.max() >= 2**31:
        raise errors.InputError(
            f'{split}_labels of {path} must be in [0, K) for K classes, got {labels.min()} to {labels.max()}'
        )
    return images, labels.astype(np.int32)


def _check_shapes(path: str, splits: Mapping[str, tuple[np.ndarray, np.ndarray] | None]) -> None:
    """Checks that the images of all splits have the same size."""
    shapes = {name: split[0].shape[1:] for name, split in splits.items() if split}
    for name, shape in shapes.items():
        if shape != shapes['train']:
            raise errors.InputError(
                f'{name}_images of {path} are {list(shape)} each, but train_images are {list(shapes["train"])}'
            )


def _class_names(path: str, archive: Mapping[str, np.ndarray], given, labels: list[np.ndarray]) -> tuple[str, ...]:
    """Returns the names of the classes: those given, those in the file, or the numbers of the labels."""
    if not given and 'class_names' in archive:
        given = archive['class_names']
        if given.ndim != 1 or given.dtype.kind != 'U':
            raise errors.InputError(f'class_names of {path} must be strings [K], got {given.dtype} {given.shape}')
    names = tuple(map(str, given))
    if not names:
        largest, examples = max(int(part.max()) for part in labels), sum(map(len, labels))
        if largest >= examples:
            raise errors.InputError(
                f'the labels of {path} go up to {largest}, for {examples} examples: they must be in [0, K) for K classes'
            )
        names = tuple(map(str, range(largest + 1)))
    if len(names) < 2 or len(set(names)) < len(names):
        raise errors.InputError(f'{path} needs at least 2 classes with different names, got {names}')
    return names


def _first_positions(split: str, path: str, count: int | None, available: int) -> range:
    """Returns the positions of the first `count` of the available examples, by default of all."""
    if count is not None and not 1 <= count <= available:
        raise errors.InputError(f'{split}_examples of {path} must be 1 to {available}, got {count}')
    return range(available if count is None else count)

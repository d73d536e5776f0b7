"""Labeled images from one `.npz` file of NumPy arrays, whatever they were made from."""

import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from rfn_jax.core import digests, errors
from rfn_jax.data import dataset, sources

# How a file may call the arrays of a split; `val_` and `x_`, `y_` are the names of MedMNIST and of Keras.
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

    Images are uint8 `[N, H, W, C]` with 1 or 3 channels, or `[N, H, W]` for gray ones, of one size in all splits; labels are
    integers `[N]` or `[N, 1]` in `[0, K)`. The names `x_train`, `y_train`, `x_test` and `y_test` will do as well. Where the
    file has no `validation_images` and `validation_labels` (or `val_...`), the last training examples are set apart for it.
    Nothing is unpickled.

    The ids of the examples are their positions in the arrays of the file.

    Args:
      path: The file.
      sha256: Hash that the file must have; None takes any. A work directory keeps the hash of the file that it was made with.
      train_examples: Number of training examples, the first ones; by default all that are not for the validation.
      validation_examples: Number of validation examples: the first ones of the file's own, all by default; or the last ones
        of its training examples, a tenth of them by default.
      test_examples: Number of test examples, the first ones; all by default.
      class_names: Names of the K classes; by default those in the file (an array of strings `class_names`), else the
        numbers from 0 to the largest label.

    Raises:
      InputError: The file cannot be read or has another hash, an array is missing or does not fit, or a number is out of its
        range.
    """
    if sha256 is not None and sha256 != (found_hash := digests.of_file(path)):
        raise errors.InputError(
            f'{path} has changed: its SHA-256 is {found_hash}, and not {sha256}; restore it, or choose another --workdir'
        )
    found = _read(path)
    splits = {name: _split(path, found, name) for name in SPLITS}
    for name in ('train', 'test'):
        if splits[name] is None:
            raise errors.InputError(
                f'{path} has no array {name}_images; it holds {", ".join(sorted(found)) or "nothing"}'
            )
    _check_shapes(path, splits)
    names = _class_names(path, found, class_names, [labels for _, labels in filter(None, splits.values())])

    def take(name: str, positions: range) -> dataset.ImageDataset:
        images, labels = splits[name]
        chosen = slice(positions.start, positions.stop)
        where = f'{pathlib.Path(path).name}/{name}'
        return dataset.ImageDataset(images[chosen], labels[chosen], np.asarray(positions), names, where)

    count = len(splits['train'][0])
    if splits['validation'] is None:
        apart = max(1, count // 10) if validation_examples is None else validation_examples
        if not 1 <= apart < count:
            raise errors.InputError(
                f'{path} has {count} training examples and none for the validation, which needs 1 to {count - 1} of them: '
                f'got validation_examples {apart}'
            )
        count -= apart
        validation = take('train', range(count, count + apart))
    else:
        most = len(splits['validation'][0])
        validation = take('validation', _first('validation', path, validation_examples, most))
    train = take('train', _first('train', path, train_examples, count))
    return sources.Splits(
        info=train.info(),
        train=train,
        validation=validation,
        test=take('test', _first('test', path, test_examples, len(splits['test'][0]))),
    )


def pinned(spec: Mapping[str, object]) -> dict[str, object]:
    """A spec of the source with the absolute path and the hash of its file, unless it has one.

    Raises:
      InputError: The file cannot be read.
    """
    path = spec.get('path')
    if not isinstance(path, str) or not path:
        return dict(spec)  # as `arrays` will say
    path = str(pathlib.Path(os.path.expanduser(path)).absolute())
    return {'sha256': digests.of_file(path), **spec, 'path': path}


def _read(path: str) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file."""
    try:
        if not zipfile.is_zipfile(path := os.path.expanduser(path)):
            pathlib.Path(path).open('rb').close()  # an OSError, if that is why
            raise ValueError('it is no archive of arrays')
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        for name, array in found.items():
            if not isinstance(array, np.ndarray):
                raise TypeError(f'{name} is no array')
        return found
    except OSError as error:
        raise errors.InputError(f'could not read {path!r}: {error.strerror or error}') from error
    except Exception as error:  # damaged archives and headers raise errors of many types
        reason = 'it holds Python objects' if 'allow_pickle' in str(error) else f'{error or type(error).__name__}'
        raise errors.InputError(f'{path} is not a .npz file of NumPy arrays: {reason}') from error


def _split(path: str, found: Mapping[str, np.ndarray], split: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Images and labels of a split, in the forms that `ImageDataset` takes; None if the file has neither."""
    parts = []
    for kind, names in (('images', IMAGES), ('labels', LABELS)):
        there = [name.format(s) for s in SPLITS[split] for name in names if name.format(s) in found]
        if len(there) > 1:
            raise errors.InputError(f'{path} has {kind} of one split under several names: {", ".join(there)}')
        parts.append(found[there[0]] if there else None)
    images, labels = parts
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        missing = 'images' if images is None else 'labels'
        raise errors.InputError(f'{path} has no array {split}_{missing}; it holds {", ".join(sorted(found))}')
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
    """Checks that the images of all splits are of one size."""
    shapes = {name: split[0].shape[1:] for name, split in splits.items() if split}
    for name, shape in shapes.items():
        if shape != shapes['train']:
            raise errors.InputError(
                f'{name}_images of {path} are {list(shape)} each, and train_images {list(shapes["train"])}'
            )


def _class_names(path: str, found: Mapping[str, np.ndarray], given, labels: list[np.ndarray]) -> tuple[str, ...]:
    """The names of the classes: those given, those of the file, or the numbers of the labels."""
    if not given and 'class_names' in found:
        given = found['class_names']
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
        raise errors.InputError(f'{path} needs at least 2 classes with names of their own, got {names}')
    return names


def _first(split: str, path: str, count: int | None, most: int) -> range:
    """The positions of the first `count` of `most` examples."""
    if count is not None and not 1 <= count <= most:
        raise errors.InputError(f'{split}_examples of {path} must be 1 to {most}, got {count}')
    return range(most if count is None else count)

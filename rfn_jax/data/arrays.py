"""Labelled images from one `.npz` file of NumPy arrays, whatever they were made from."""

import io
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from rfn_jax.core import errors
from rfn_jax.data import dataset, sources

# How a file may call the arrays of a split; `val_` and `x_`, `y_` are the names of MedMNIST and of Keras.
IMAGES = ('{}_images', 'x_{}')
LABELS = ('{}_labels', 'y_{}')
SPLITS = {'train': ('train',), 'validation': ('validation', 'val'), 'test': ('test',)}


@sources.SOURCES.register
def arrays(
    *,
    path: str,
    train_examples: int | None = None,
    validation_examples: int | None = None,
    test_examples: int | None = None,
    class_names: tuple[str, ...] = (),
) -> dataset.Splits:
    """Images and labels of a `.npz` file with the arrays `train_images`, `train_labels`, `test_images`, `test_labels`.

    Images are uint8 `[N, H, W, C]`, or `[N, H, W]` for grey ones; labels are integers `[N]` or `[N, 1]` in `[0, K)`. The
    names `x_train`, `y_train`, `x_test` and `y_test` will do as well. Where the file has no `validation_images` and
    `validation_labels` (or `val_...`), the last training examples are set apart for it. Nothing is unpickled.

    The ids of the examples are their positions in the arrays of the file.

    Args:
      path: The file.
      train_examples: Number of training examples, the first ones; by default all that are not for the validation.
      validation_examples: Number of validation examples: the first ones of the file's own, all by default; or the last ones
        of its training examples, a tenth of them by default.
      test_examples: Number of test examples, the first ones; all by default.
      class_names: Names of the K classes; by default those in the file (an array of strings `class_names`), else the
        numbers from 0 to the largest label.

    Raises:
      InputError: The file cannot be read, an array is missing or does not fit, or a number is out of its range.
    """
    found = _read(path)
    splits = {name: _split(path, found, name) for name in SPLITS}
    for name in ('train', 'test'):
        if splits[name] is None:
            raise errors.InputError(
                f'{path} has no array {name}_images; it holds {", ".join(sorted(found)) or "nothing"}'
            )
    names = tuple(class_names) or tuple(map(str, found.get('class_names', ())))
    names = names or tuple(map(str, range(1 + max(int(split[1].max()) for split in splits.values() if split))))

    def take(name: str, positions: range, of: str) -> dataset.ImageDataset:
        images, labels = splits[of]
        if not positions:
            raise errors.InputError(f'{name}_examples of {path} must be 1 to {len(images)}, got {len(positions)}')
        chosen = slice(positions.start, positions.stop)
        where = f'{pathlib.Path(path).name}/{of}'
        return dataset.ImageDataset(images[chosen], labels[chosen], np.asarray(positions), names, where)

    count = len(splits['train'][0])
    if splits['validation'] is None:
        apart = max(1, count // 10) if validation_examples is None else validation_examples
        if not 1 <= apart < count:
            raise errors.InputError(
                f'validation_examples of {path} must be 1 to {count - 1}, since they are set apart from its {count} '
                f'training examples, got {apart}'
            )
        validation = take('validation', range(count - apart, count), 'train')
        count -= apart
    else:
        most = len(splits['validation'][0])
        validation = take('validation', _first('validation', path, validation_examples, most), 'validation')
    return dataset.Splits(
        train=take('train', _first('train', path, train_examples, count), 'train'),
        validation=validation,
        test=take('test', _first('test', path, test_examples, len(splits['test'][0])), 'test'),
    )


def _read(path: str) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file."""
    try:
        with np.load(io.BytesIO(pathlib.Path(os.path.expanduser(path)).read_bytes()), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise errors.InputError(f'could not read {path!r}: {error.strerror or error}') from error
    except (AttributeError, EOFError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = 'it holds Python objects' if 'allow_pickle' in str(error) else str(error)
        raise errors.InputError(f'{path} is not a .npz file of NumPy arrays: {reason}') from error


def _split(path: str, found: Mapping[str, np.ndarray], split: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Images and labels of a split, in the forms that `ImageDataset` takes; None if the file has neither."""
    images, labels = (
        next((found[name.format(s)] for s in SPLITS[split] for name in names if name.format(s) in found), None)
        for names in (IMAGES, LABELS)
    )
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        missing = 'images' if images is None else 'labels'
        raise errors.InputError(f'{path} has no array {split}_{missing}; it holds {", ".join(sorted(found))}')
    if images.ndim == 3:
        images = images[..., None]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or not len(labels):
        raise errors.InputError(
            f'{split}_labels of {path} must be integers [N] with N at least 1, got {labels.dtype} {labels.shape}'
        )
    if len(images) != len(labels):
        raise errors.InputError(f'{path} has {len(images)} {split}_images and {len(labels)} {split}_labels')
    if labels.min() < 0 or labels.max() >= 2**31:
        raise errors.InputError(f'{split}_labels of {path} must be at least 0, got {labels.min()} to {labels.max()}')
    return images, labels.astype(np.int32)


def _first(split: str, path: str, count: int | None, most: int) -> range:
    """The positions of the first `count` of `most` examples."""
    if count is not None and not 1 <= count <= most:
        raise errors.InputError(f'{split}_examples of {path} must be 1 to {most}, got {count}')
    return range(most if count is None else count)

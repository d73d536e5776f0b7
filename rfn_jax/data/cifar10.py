"""CIFAR-10, read through TFDS (prepared as ArrayRecord) and Grain; TensorFlow is not needed."""

import os

import numpy as np

from rfn_jax.core import errors
from rfn_jax.data import dataset, sources


@sources.SOURCES.register
def cifar10(
    *, data_dir: str = '', train_examples: int = 45_000, validation_examples: int = 5_000, test_examples: int = 10_000
) -> dataset.Splits:
    """CIFAR-10: 32x32 colour images in 10 classes.

    Training examples are the first ones of TFDS's `train`, validation examples the last ones of it, and test examples the
    first ones of `test`. Their ids are their positions there.

    Args:
      data_dir: Directory that holds `cifar10/` as TFDS prepares it; by default the environment variable TFDS_DATA_DIR,
        then TFDS's own default.
      train_examples: Number of training examples, at least 1.
      validation_examples: Number of validation examples, at least 1; 50 000 together with the training ones at most.
      test_examples: Number of test examples, 1 to 10 000.

    Raises:
      InputError: The data set is not there, or a number is out of its range.
    """
    if min(train_examples, validation_examples, test_examples) < 1:
        raise errors.InputError(
            f'train_examples {train_examples}, validation_examples {validation_examples} and test_examples '
            f'{test_examples} must be at least 1'
        )
    train, test = (_source(split, data_dir) for split in ('train', 'test'))
    if train_examples + validation_examples > len(train) or test_examples > len(test):
        raise errors.InputError(
            f'train_examples {train_examples} and validation_examples {validation_examples} must be at most {len(train)} '
            f'together, and test_examples {test_examples} at most {len(test)}'
        )
    names = tuple(train.dataset_info.features['label'].names)
    return dataset.Splits(
        train=_read(train, range(train_examples), names, 'cifar10/train'),
        validation=_read(train, range(len(train) - validation_examples, len(train)), names, 'cifar10/train'),
        test=_read(test, range(test_examples), names, 'cifar10/test'),
    )


def _source(split: str, data_dir: str):
    import tensorflow_datasets as tfds  # takes half a second, and the other data sets do not need it

    data_dir = data_dir or os.environ.get('TFDS_DATA_DIR') or None
    try:
        return tfds.data_source('cifar10', split=split, data_dir=data_dir, download=False)
    except Exception as error:  # TFDS raises many types for a missing or damaged data set
        where = data_dir or 'the default directory of TFDS'
        raise errors.InputError(
            f'no CIFAR-10 prepared by TFDS as array_record in {where} ({type(error).__name__}); set TFDS_DATA_DIR or '
            '--config.data.data_dir to the directory that holds cifar10/'
        ) from error


def _read(source, positions: range, names: tuple[str, ...], where: str) -> dataset.ImageDataset:
    """Decodes the examples at `positions` into memory."""
    import grain  # the other data sets do not need it

    examples = (
        grain.MapDataset.source(source)
        .slice(slice(positions.start, positions.stop))
        .map(lambda example: (example['image'], example['label']))
        .batch(min(256, len(positions)))
        .to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))
    )
    images, labels = (np.concatenate(parts) for parts in zip(*examples, strict=True))
    return dataset.ImageDataset(images, labels.astype(np.int32), np.asarray(positions), names, where)

"""CIFAR-10, read through TFDS (prepared as ArrayRecord); TensorFlow is not needed."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from rfn_jax.core import checks, errors
from rfn_jax.data import info as info_lib
from rfn_jax.data import sources

INFO = info_lib.DataInfo(
    image_shape=(32, 32, 3),
    class_names=('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'),
    mean=(0.49139968, 0.48215841, 0.44653091),
    std=(0.24703223, 0.24348513, 0.26158784),
)


class TfdsSource:
    """Some examples of a TFDS split, decoded when they are accessed.

    Args:
      records: What `tfds.data_source` returns: mappings with `image` and `label`, by position.
      positions: Which records to use; the position of an example is its id.
      source: Where they come from, such as `'cifar10/test'`.
    """

    def __init__(self, records: Sequence[Any], positions: range, source: str):
        self.source = source
        self._records = records
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, position: int) -> sources.Record:
        number = self._positions[position]
        example = self._records[number]
        return sources.Record(np.asarray(example['image']), np.int32(example['label']), np.uint32(number))


@sources.SOURCES.register
def cifar10(
    *, data_dir: str = '', train_examples: int = 45_000, validation_examples: int = 5_000, test_examples: int = 10_000
) -> sources.Splits:
    """CIFAR-10: 32x32 color images in 10 classes.

    Training examples are the first ones of the TFDS split `train`, validation examples are the last ones of that split, and
    test examples are the first ones of `test`. Their ids are their positions in these splits.

    Args:
      data_dir: Directory that holds `cifar10/` as TFDS prepares it; by default the environment variable TFDS_DATA_DIR or, if
        it is not set, the default directory of TFDS.
      train_examples: Number of training examples, at least 1.
      validation_examples: Number of validation examples, at least 1; at most 50 000 together with the training examples.
      test_examples: Number of test examples, 1 to 10 000.

    Raises:
      InputError: The data set is missing, or a number is out of range.
    """
    given = {'train': train_examples, 'validation': validation_examples, 'test': test_examples}
    for name, count in given.items():
        checks.integer(f'{name}_examples', count, at_least=1)
    train, test = (_records(split, data_dir) for split in ('train', 'test'))
    if train_examples + validation_examples > len(train) or test_examples > len(test):
        raise errors.InputError(
            f'train_examples {train_examples} and validation_examples {validation_examples} must be at most {len(train)} '
            f'together, and test_examples {test_examples} at most {len(test)}'
        )
    return sources.Splits(
        info=INFO,
        train=TfdsSource(train, range(train_examples), 'cifar10/train'),
        validation=TfdsSource(train, range(len(train) - validation_examples, len(train)), 'cifar10/train'),
        test=TfdsSource(test, range(test_examples), 'cifar10/test'),
    )


def _records(split: str, data_dir: str) -> Sequence[Any]:
    import tensorflow_datasets as tfds  # takes half a second, and other data sets do not need it

    data_dir = data_dir or os.environ.get('TFDS_DATA_DIR') or None
    try:
        return tfds.data_source('cifar10', split=split, data_dir=data_dir, download=False)
    except Exception as error:  # TFDS raises many types of errors for a missing or damaged data set
        where = data_dir or 'the default directory of TFDS'
        raise errors.InputError(
            f'found no CIFAR-10 prepared by TFDS as array_record in {where} ({type(error).__name__}); set TFDS_DATA_DIR or '
            '--config.data.data_dir to the directory that holds cifar10/'
        ) from error

"""Data sets that TFDS has prepared as ArrayRecord, such as CIFAR-10 and ImageNet; TensorFlow is not needed."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from rfn_jax.core import checks, errors
from rfn_jax.data import decoding, resized, resizing, sources
from rfn_jax.data import info as info_lib

CIFAR10 = info_lib.DataInfo(
    image_shape=(32, 32, 3),
    class_names=('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'),
    mean=(0.49139968, 0.48215841, 0.44653091),
    std=(0.24703223, 0.24348513, 0.26158784),
)
CIFAR10_SPLITS = {'train': 'train', 'validation': 'train', 'test': 'test'}


class TfdsSource:
    """Some examples of a TFDS split, decoded when they are accessed.

    Args:
      records: What `tfds.data_source` returns without decoding: mappings with an encoded `image` and a `label`, by position.
      positions: Which records to use; the position of an example in the split is its id.
      source: Where they come from, such as `'cifar10/test'`.
      num_classes: Number of classes.
      channels: 3 for color, 1 for gray.
    """

    def __init__(self, records: Sequence[Any], positions: range, source: str, *, num_classes: int, channels: int = 3):
        self.source, self.ids = source, np.asarray(positions, np.int64)
        self._records, self._positions = records, positions
        self._num_classes, self._channels = num_classes, channels

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, position: int) -> sources.Record:
        number = self._positions[position]
        example = self._records[number]
        name = f'image {number} of {self.source}'
        if not 0 <= example['label'] < self._num_classes:
            raise errors.InputError(
                f'{name} has the label {example["label"]}, which is not in [0, {self._num_classes}); a label of -1 means '
                'that the labels of this split are not public: choose another test_split'
            )
        image = decoding.decode(example['image'], channels=self._channels, name=name)
        return sources.Record(image, np.int32(example['label']), np.int64(number))


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
    counts = {'train': train_examples, 'validation': validation_examples, 'test': test_examples}
    _check_counts(counts)
    return sources.Splits(CIFAR10, **_splits(_builder('cifar10', data_dir), CIFAR10_SPLITS, counts))


@sources.SOURCES.register
def tfds(
    *,
    dataset: str,
    data_dir: str = '',
    train_split: str = 'train',
    validation_split: str = '',
    test_split: str = '',
    image_size: int | None = None,
    resize: int | None = None,
    interpolation: str = 'bilinear',
    train_examples: int | None = None,
    validation_examples: int | None = None,
    test_examples: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> sources.Splits:
    """Any image classification data set that TFDS has prepared as `array_record`, such as `imagenet2012` or `cifar100`.

    Training examples are the first ones of `train_split`, validation examples the last ones of it or the first ones of
    `validation_split`, and test examples the first ones of `test_split`. The id of an example is its position in its split.
    `rfn-jax prepare` makes such a data set from image files without TensorFlow.

    Args:
      dataset: Name of the data set; `name/config` and `name:version` work as in TFDS.
      data_dir: Directory that holds the data sets of TFDS; by default the environment variable TFDS_DATA_DIR or, if it is not
        set, the default directory of TFDS.
      train_split: Name of the split for training, and for validation unless `validation_split` is set.
      validation_split: Name of another split for validation.
      test_split: Name of the split for testing; by default `test` or, if there is none, `validation`. The split `test` of
        `imagenet2012` has no labels.
      image_size: Height and width of the images that networks get; by default that of the data set, if all its images have
        one size. See `ResizeAndCrop`.
      resize: Length of the shorter side before the center crop; by default 8/7 of `image_size` (256 for 224).
      interpolation: `'bilinear'` or `'bicubic'`.
      train_examples: Number of training examples; by default all that are not for validation.
      validation_examples: Number of validation examples; by default all of `validation_split`, or else a tenth of
        `train_split`, at most 10 000.
      test_examples: Number of test examples; by default all.
      mean: Mean of each channel of the training images, in [0, 1]; by default that of ImageNet.
      std: Standard deviation of each channel; by default that of ImageNet.

    Raises:
      InputError: The data set or a split is missing, the test split is one of the others, the data set has no `image` and
        `label`, its images differ in size and `image_size` is not set, or a number is out of range.
    """
    builder = _builder(dataset, data_dir)
    features = builder.info.features
    if features is None or not {'image', 'label'} <= set(features) or not getattr(features['label'], 'names', None):
        raise errors.InputError(
            f'TFDS data set {dataset!r} has no feature image or no feature label with named classes'
        )
    height, width, channels = features['image'].shape
    if channels not in decoding.MODES:
        channels = 3
    transform = None
    if image_size is not None:
        checks.integer('image_size', image_size, at_least=1)
        resize = resizing.usual_resize(image_size) if resize is None else resize
        transform = resizing.ResizeAndCrop(image_size, resize, interpolation)
        height = width = image_size
    elif height is None or width is None:
        raise errors.InputError(f'the images of {dataset!r} differ in size: set data.image_size, such as 224')
    elif resize is not None:
        raise errors.InputError(f'resize needs image_size, the size after the crop; got only resize {resize}')
    test_split = test_split or ('test' if 'test' in builder.info.splits else 'validation')
    names = {'train': train_split, 'validation': validation_split or train_split, 'test': test_split}
    for split in names.values():
        checks.one_of(f'split of {dataset!r}:', split, builder.info.splits)
    if test_split in (names['train'], names['validation']):
        raise errors.InputError(
            f'the split {test_split!r} of {dataset!r} cannot be for testing and for another purpose'
        )
    sizes = {name: builder.info.splits[split].num_examples for name, split in names.items()}
    if names['validation'] == train_split:
        if validation_examples is None:
            validation_examples = min(10_000, max(1, sizes['train'] // 10))
        sizes['train'] = max(1, sizes['train'] - validation_examples)
    given = {'train': train_examples, 'validation': validation_examples, 'test': test_examples}
    counts = {name: sizes[name] if count is None else count for name, count in given.items()}
    _check_counts(counts)
    splits = _splits(builder, names, counts, channels)
    if transform is not None:
        splits = {name: resized.ResizedSource(split, transform) for name, split in splits.items()}
    usual_mean, usual_std = info_lib.natural_statistics(channels)
    info = info_lib.DataInfo(
        image_shape=(height, width, channels),
        class_names=tuple(features['label'].names),
        mean=tuple(mean or usual_mean),
        std=tuple(std or usual_std),
    )
    return sources.Splits(info, **splits)


def _check_counts(counts: dict[str, int]) -> None:
    for name, count in counts.items():
        checks.integer(f'{name}_examples', count, at_least=1)


def _splits(builder: Any, names: dict[str, str], counts: dict[str, int], channels: int = 3) -> dict[str, TfdsSource]:
    """The three splits: the first examples of a TFDS split each, but the last ones if training and validation share one."""
    sizes = {name: builder.info.splits[split].num_examples for name, split in names.items()}
    starts = dict.fromkeys(names, 0)
    if names['validation'] == names['train']:
        starts['validation'] = sizes['train'] - counts['validation']
        if counts['train'] > starts['validation']:
            raise errors.InputError(
                f'train_examples {counts["train"]} and validation_examples {counts["validation"]} must be at most '
                f'{sizes["train"]} together'
            )
    for name, count in counts.items():
        if count > sizes[name]:
            raise errors.InputError(f'{name}_examples {count} must be at most {sizes[name]}')
    records = {split: _records(builder, split) for split in names.values()}
    options = {'num_classes': builder.info.features['label'].num_classes, 'channels': channels}
    return {
        name: TfdsSource(
            records[split],
            range(starts[name], starts[name] + counts[name]),
            f'{builder.name}/{split}',
            **options,
        )
        for name, split in names.items()
    }


def _builder(dataset: str, data_dir: str) -> Any:
    """The TFDS builder of a data set that has been prepared as ArrayRecord; reads its metadata only."""
    import tensorflow_datasets as tfds_lib  # takes half a second, and other data sets do not need it

    data_dir = data_dir or os.environ.get('TFDS_DATA_DIR') or None
    try:
        builder = tfds_lib.builder(dataset, data_dir=data_dir, file_format='array_record', try_gcs=False)
        if not builder.is_prepared():
            raise FileNotFoundError(builder.data_path)
    except Exception as error:  # TFDS raises many types of errors for a missing or damaged data set
        where = data_dir or 'the default directory of TFDS'
        raise errors.InputError(
            f'found no {dataset} prepared by TFDS as array_record in {where} ({type(error).__name__}); set TFDS_DATA_DIR or '
            f'--config.data.data_dir to the directory that holds {dataset.split(":")[0].split("/")[0]}/'
        ) from error
    return builder


def _records(builder: Any, split: str) -> Sequence[Any]:
    """The undecoded records of a split."""
    import tensorflow_datasets as tfds_lib

    try:
        return builder.as_data_source(split=split, decoders={'image': tfds_lib.decode.SkipDecoding()})
    except Exception as error:
        raise errors.InputError(
            f'could not read split {split!r} of {builder.name} in {builder.data_path} ({type(error).__name__}: {error})'
        ) from error

"""One shard of a data set: a file of ArrayRecord with a range of the images of a split."""

import collections
import dataclasses
import functools
import hashlib
import os
import pathlib

import numpy as np

from rfn_jax.core import errors, io
from rfn_jax.data.prepare import encoding, writing
from rfn_jax.data.prepare import images as images_lib
from rfn_jax.data.prepare import options as options_lib

# TFDS reads single records, hence groups of one. Snappy costs nothing on images, which hardly shrink.
WRITER_OPTIONS = 'group_size:1,snappy'


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard to write.

    Attributes:
      split: Name of the split.
      file: Name of the file.
      directory: The folder with the subfolders `data` for shards, `parts` for what is known about them, and `temporary`.
      images: The images.
      num_classes: K.
      options: How images are stored.
      skip_corrupt: Whether damaged images are left out; otherwise they are an error.
    """

    split: str
    file: str
    directory: str
    images: images_lib.Images
    num_classes: int
    options: options_lib.Options
    skip_corrupt: bool

    @property
    def path(self) -> pathlib.Path:
        """The file."""
        return pathlib.Path(self.directory, 'data', self.file)

    @property
    def part_path(self) -> pathlib.Path:
        """What is known about the finished file."""
        return pathlib.Path(self.directory, 'parts', f'{self.file}.json')


def split_into_shards(name: str, split: str, images: images_lib.Images, directory: str, **settings) -> list[Shard]:
    """The shards of a split, in order.

    Args:
      name: Name of the data set.
      split: Name of the split.
      images: Its images, ordered by id.
      directory: See `Shard`.
      **settings: `num_classes`, `options` and `skip_corrupt` of `Shard`.
    """
    count = settings['options'].num_shards(len(images), int(images.sizes.sum()))
    borders = [len(images) * number // count for number in range(count + 1)]
    return [
        Shard(
            split,
            f'{name}-{split}.array_record-{number:05d}-of-{count:05d}',  # the default template of TFDS
            directory,
            images.take(np.arange(borders[number], borders[number + 1])),
            **settings,
        )
        for number in range(count)
    ]


def finished(shard: Shard) -> dict | None:
    """What `write` returned for a shard that is finished; None if it is not.

    Raises:
      InputError: Damaged images were left out of it, which is not allowed now.
    """
    if not shard.part_path.exists() or not shard.path.exists():
        return None
    part = io.read_json_object(shard.part_path)
    if part['bytes'] != shard.path.stat().st_size:
        return None
    if part['skipped'] and not shard.skip_corrupt:
        first = part['skipped'][0]['reason']
        raise errors.InputError(
            f'{first} and was left out before; continue with --corrupt=skip, or choose another --out'
        )
    return part


def write(shard: Shard) -> dict:
    """Writes a shard, completely or not at all.

    Returns:
      Plain values: the name, size and hash of the file (`file`, `bytes`, `sha256`), the number of `examples` and of their
      bytes before compression (`content_bytes`), the number of examples of each label (`labels`), up to two sizes of
      images (`shapes`), and the `file` and `reason` of images that were left out (`skipped`).

    Raises:
      InputError: An image cannot be read, or is damaged and `skip_corrupt` is false; or the shard cannot be written.
    """
    temporary = pathlib.Path(shard.directory, 'temporary', shard.file)
    try:
        with writing.to(shard.path):
            part = _write_records(shard, temporary)
            os.replace(temporary, shard.path)
            io.write_json(shard.part_path, part)
    finally:
        temporary.unlink(missing_ok=True)  # already renamed, unless the write failed or was interrupted
    return part


def _write_records(shard: Shard, path: pathlib.Path) -> dict:
    """Writes the images of a shard to a file; see `write`."""
    from array_record.python import array_record_module

    labels: collections.Counter[str] = collections.Counter()
    shapes: set[tuple[int, int]] = set()
    skipped, content_bytes = [], 0
    writer = array_record_module.ArrayRecordWriter(str(path), WRITER_OPTIONS)
    for position, name in enumerate(shard.images.names):
        encoded = shard.images.read(position)
        try:
            encoded, shape = encoding.checked(
                encoded, repr(name), channels=shard.options.channels, max_side=shard.options.max_side
            )
        except errors.InputError as error:
            if not shard.skip_corrupt:
                raise errors.InputError(
                    f'{error} (in {shard.images.container}); --corrupt=skip leaves damaged images out'
                ) from error
            skipped.append({'split': shard.split, 'file': name, 'reason': str(error)})
            continue
        label = int(shard.images.labels[position])
        record = _serialized(encoded, label, name, shard.num_classes)
        writer.write(record)
        labels[str(label)] += 1
        content_bytes += len(record)
        if len(shapes) < 2:
            shapes.add(shape)
    writer.close()
    with path.open('rb') as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    return {
        'file': shard.file,
        'bytes': path.stat().st_size,
        'sha256': digest,
        'examples': labels.total(),
        'content_bytes': content_bytes,
        'labels': dict(labels),
        'shapes': sorted(shapes),
        'skipped': skipped,
    }


def _serialized(encoded: bytes, label: int, name: str, num_classes: int) -> bytes:
    """A record as TFDS reads it. The order of its features is fixed, which a plain `SerializeToString` does not do."""
    example = {'image': encoded, 'label': label, 'file_name': name}
    return _serializer(num_classes).get_tf_example(example).SerializeToString(deterministic=True)


@functools.cache
def _serializer(num_classes: int):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import example_serializer

    label = tfds.features.ClassLabel(num_classes=num_classes)
    features = {'image': tfds.features.Image(), 'label': label, 'file_name': tfds.features.Text()}
    return example_serializer.ExampleSerializer(tfds.features.FeaturesDict(features).get_serialized_info())

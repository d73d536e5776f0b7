"""`rfn-jax prepare`: a data set in the layout of TFDS from image files."""

import os
from collections.abc import Sequence

from absl import flags

from rfn_jax.cli import flag_values
from rfn_jax.core import errors

SUMMARY = 'makes a data set that trains fast from an image folder or from the archives of ImageNet.'
EXAMPLES = """
examples:
  rfn-jax prepare --images=pets --out=datasets --name=pets
      pets/CLASS/IMAGE.jpg, or pets/train/CLASS/IMAGE.jpg and pets/val/...; a config then reads the data set with
      config.data = {'name': 'tfds', 'dataset': 'pets', 'data_dir': 'datasets', 'image_size': 224}
  rfn-jax prepare --train-archive=ILSVRC2012_img_train.tar --validation-archive=ILSVRC2012_img_val.tar \\
      --out=datasets --name=imagenet --max-side=256 --corrupt=skip
      ImageNet from its archives, with smaller images, which take less time to decode

An interrupted run continues with the same command. The result does not depend on --workers.
"""


def main(arguments: Sequence[str]) -> int:
    """Runs `rfn-jax prepare`.

    Raises:
      InputError: A flag or a file is wrong, or the output cannot be written.
      RunError: Another process is making the same data set, or a worker process died.
    """
    values = flags.FlagValues()
    labels_help = (
        'Text file with the class of each image of --validation_archive: lines IMAGE CLASS, or one class a line in the order '
        "of the names of the images, or the development kit's ILSVRC2012_validation_ground_truth.txt. By default, the "
        'labels of the 50 000 official images.'
    )
    for name, default, help_text in (
        ('images', None, 'Folder with a subfolder for each class, or with train, val and test folders of these.'),
        ('train_archive', None, 'ILSVRC2012_img_train.tar, or another tar file that holds a tar file for each class.'),
        ('validation_archive', None, 'ILSVRC2012_img_val.tar; by default, test images are held out.'),
        ('validation_labels', '', labels_help),
        (
            'validation_ids',
            '',
            "What the numbers in ILSVRC2012_validation_ground_truth.txt stand for: the development kit's meta.mat, or a "
            'text file with the class of each number, one a line.',
        ),
        ('classes', '', 'Text file with the classes in the order of the labels, one a line; by default, sorted.'),
        ('out', None, 'Folder of data sets; the result is OUT/NAME/1.0.0.'),
        ('name', None, 'Name of the data set: lowercase letters, digits and _.'),
        ('corrupt', 'fail', 'What to do about images that cannot be decoded: fail, or skip (the manifest lists them).'),
    ):
        flags.DEFINE_string(name, default, help_text, flag_values=values)
    help_text = 'Fraction of the images to hold out for testing, where there are no folders or archives of others.'
    flags.DEFINE_float('test_fraction', 0.2, help_text, flag_values=values)
    flags.DEFINE_integer(
        'channels', 3, 'Channels that images are read with: 3 for color, 1 for gray.', flag_values=values
    )
    help_text = (
        'Shrink images until their shorter side has this length, and store them as JPEG of quality 95; smaller ones, and by '
        'default all, are stored as they are.'
    )
    flags.DEFINE_integer('max_side', None, help_text, flag_values=values)
    help_text = 'Approximate size of a shard in MiB; by default at most 256, and less to get 16 shards.'
    flags.DEFINE_float('shard_mb', None, help_text, flag_values=values)
    flags.DEFINE_integer('workers', None, 'Number of processes; by default, one for each core.', flag_values=values)
    flag_values.parse(values, 'prepare', SUMMARY, arguments, needed=('out', 'name'), examples=EXAMPLES)
    _check_sources(values)

    from rfn_jax.core import checks
    from rfn_jax.data import prepare

    # Listing a million images takes a while: what is wrong with the other flags is said before.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    workers = cores if values.workers is None else checks.integer('workers', values.workers, at_least=1)
    checks.one_of('value of corrupt:', values.corrupt, prepare.CORRUPT)
    prepare.location.of(values.out, values.name)
    options = prepare.Options(channels=values.channels, max_side=values.max_side, shard_mb=values.shard_mb)
    settings = {'classes': values.classes, 'test_fraction': values.test_fraction}
    if values.images:
        listing = prepare.folder.read(values.images, **settings)
    else:
        listing = prepare.archives.read(
            values.train_archive,
            values.validation_archive or '',
            validation_labels=values.validation_labels,
            validation_ids=values.validation_ids,
            **settings,
        )
    prepare.prepare(listing, values.out, values.name, options=options, corrupt=values.corrupt, workers=workers)
    return 0


def _check_sources(values: flags.FlagValues) -> None:
    """Checks that the flags name either a folder or archives."""
    if bool(values.images) == bool(values.train_archive):
        raise errors.InputError(
            'rfn-jax prepare needs --images=FOLDER, or --train-archive=FILE; see rfn-jax prepare --help'
        )
    if values.images:
        for name in ('validation_archive', 'validation_labels', 'validation_ids'):
            if values[name].value:
                raise errors.InputError(f'--{name} goes with --train-archive, not with --images')

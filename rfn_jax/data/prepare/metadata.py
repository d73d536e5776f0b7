"""What is written about a data set besides its shards: the plan, the manifest, and the files that TFDS reads."""

import collections
import dataclasses
import importlib.metadata
import pathlib

from etils import epath

from rfn_jax.core import errors
from rfn_jax.core.version import __version__
from rfn_jax.data.prepare import images as images_lib
from rfn_jax.data.prepare import options as options_lib

PACKAGES = ('array_record', 'pillow', 'tensorflow-datasets')


def plan(listing: images_lib.Listing, options: options_lib.Options) -> dict:
    """What decides the bytes of a data set, as plain values."""
    return {'options': dataclasses.asdict(options), 'origin': listing.origin, 'sha256': listing.sha256()}


def check_same(path: pathlib.Path, before: dict, now: dict) -> None:
    """Checks that a data set that was begun or finished is the one that is wanted.

    Raises:
      InputError: It was made with other options or from other images.
    """
    try:
        for option, value in now['options'].items():
            if before['options'][option] != value:
                raise errors.InputError(
                    f'{path} was made with {option} {before["options"][option]}, not {value}: give the same options, or '
                    'choose another name or out'
                )
        if before['sha256'] != now['sha256']:
            raise errors.InputError(
                f'{path} was made from other images or classes ({_words(before["origin"])}) than those of '
                f'{_words(now["origin"])}: choose another name or out'
            )
    except (KeyError, TypeError, AttributeError) as error:
        raise errors.InputError(f'{path} is damaged, or of another version of rfn_jax: delete it') from error


def _words(origin: dict) -> str:
    return ', '.join(f'{name} {value}' for name, value in origin.items())


def manifest(name: str, planned: dict, listing: images_lib.Listing, parts: dict[str, list[dict]]) -> dict:
    """The manifest of a data set.

    Args:
      name: Its name.
      planned: What `plan` returned.
      listing: The images.
      parts: For each split, what `shards.write` returned for its shards, in order.

    Raises:
      InputError: A split has no image left.
    """
    splits = {}
    for split, of_split in parts.items():
        labels: collections.Counter[str] = collections.Counter()
        for part in of_split:
            labels.update(part['labels'])
        if not labels.total():
            raise errors.InputError(
                f'no image of {split} can be decoded, such as {of_split[0]["skipped"][0]["reason"]}'
            )
        splits[split] = {
            'examples': labels.total(),
            'content_bytes': sum(part['content_bytes'] for part in of_split),
            'classes': {c: labels[str(label)] for label, c in enumerate(listing.classes)},
            'shards': [{key: part[key] for key in ('file', 'bytes', 'sha256', 'examples')} for part in of_split],
        }
    every = [part for of_split in parts.values() for part in of_split]
    shapes = {tuple(shape) for part in every for shape in part['shapes']}
    return {
        **planned,
        'name': name,
        'image_shape': [*next(iter(shapes)), planned['options']['channels']] if len(shapes) == 1 else None,
        'splits': splits,
        'skipped': [skipped for part in every for skipped in part['skipped']],
        'versions': {'rfn_jax': __version__, **{p: importlib.metadata.version(p) for p in PACKAGES}},
    }


def write_tfds(
    directory: pathlib.Path, name: str, version: str, classes: tuple[str, ...], channels: int, contents: dict
) -> None:
    """Writes the files with which TFDS finds and reads the shards in a folder.

    Args:
      directory: The folder.
      name: Name of the data set.
      version: Its version.
      classes: The names of the classes.
      channels: Number of channels.
      contents: The manifest.
    """
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(directory), dataset_name=name, filetype_suffix='array_record'
    )
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard['examples'] for shard in about['shards']],
            num_bytes=about['content_bytes'],
            filename_template=template.replace(split=split),
        )
        for split, about in contents['splits'].items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=tfds.features.FeaturesDict(
            {
                'image': tfds.features.Image(shape=contents['image_shape'] or (None, None, channels)),
                'label': tfds.features.ClassLabel(names=classes),
                'file_name': tfds.features.Text(),
            }
        ),
        split_infos=splits,
        version=version,
        check_data=False,  # it would need TensorFlow
        supervised_keys=('image', 'label'),
        description=f'Images in {len(classes)} classes, prepared by rfn-jax prepare.',
    )

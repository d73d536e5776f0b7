"""Pins the files of a data set: a spec in a config gets absolute paths and a hash of what they hold."""

from collections.abc import Mapping

from rfn_jax.data import array_file, folder_source

# Options that say where the files of a data set are; they may change when files are moved.
LOCATIONS = ('classes', 'data_dir', 'directory', 'path')


def pinned(spec: Mapping[str, object]) -> dict[str, object]:
    """Returns a spec with absolute paths and, for files that a user may change, a hash unless the spec already has one.

    Args:
      spec: Name and options of a data set, as a config has them.

    Raises:
      InputError: A file cannot be read.
    """
    pins = {'arrays': array_file.pinned_file, 'image_folder': folder_source.pinned_folder}
    pin = pins.get(spec.get('name'))
    return dict(spec) if pin is None else pin(spec)

"""Adversarial sets on disk: one file, `adversarial.npz`, which also says what its images were made from.

It holds `images`, `ids` and `labels`, and two strings: `origin` as JSON, and `sha256`, the hash of all the others. Because a
set is one file, it is replaced completely or not at all.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from rfn_jax.core import digests, errors, io


@dataclasses.dataclass(frozen=True)
class AdversarialSet:
    """Adversarial images, as uint8 like those in any image file, and where they come from.

    Attributes:
      images: uint8 `[N, H, W, C]`.
      ids: int64 `[N]`, the ids of the originals in their data set.
      labels: int32 `[N]`, the true classes.
      origin: What they were made from (data set, surrogate and the hash of its weights, attack, seed): plain JSON values.
    """

    images: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    origin: Mapping[str, Any]

    def images_for(self, ids: np.ndarray) -> np.ndarray | None:
        """Returns the images made from the originals `ids`, in that order; None if one is missing."""
        order = np.argsort(self.ids, kind='stable')
        positions = np.searchsorted(self.ids, ids, sorter=order)
        if not len(self.ids) or np.any(positions >= len(self.ids)):
            return None
        rows = order[positions]
        return self.images[rows] if np.array_equal(self.ids[rows], ids) else None

    def merge(self, other: 'AdversarialSet') -> 'AdversarialSet':
        """Returns a set with the examples of both, sorted by id; an example that is in both is taken from `self`."""
        new = ~np.isin(other.ids, self.ids)
        ids = np.concatenate([self.ids, other.ids[new]])
        order = np.argsort(ids, kind='stable')
        images = np.concatenate([self.images, other.images[new]])[order]
        labels = np.concatenate([self.labels, other.labels[new]])[order]
        return dataclasses.replace(self, images=images, ids=ids[order], labels=labels)


def save(adversarial: AdversarialSet, directory: os.PathLike[str] | str) -> None:
    """Writes `adversarial.npz`, replacing any existing set.

    Raises:
      RunError: The disk is full or the directory cannot be written; an existing set is left unchanged.
    """
    arrays = {'images': adversarial.images, 'ids': adversarial.ids, 'labels': adversarial.labels}
    arrays['origin'] = np.array(json.dumps(adversarial.origin, sort_keys=True))
    io.write_bytes(_path(directory), io.npz_bytes(**arrays, sha256=np.array(digests.of_arrays(arrays))))


def load(directory: os.PathLike[str] | str) -> AdversarialSet:
    """Reads an adversarial set and checks its hash; nothing is unpickled.

    Raises:
      InputError: The file is missing or damaged.
    """
    path = _path(directory)
    content = io.read_bytes(path)
    try:
        with io.npz_arrays(content) as file:
            arrays = {name: file[name] for name in ('images', 'ids', 'labels', 'origin')}
            if digests.of_arrays(arrays) != str(file['sha256']):
                raise ValueError('its SHA-256 is not the one recorded when it was saved')
        origin = json.loads(str(arrays.pop('origin')))
        return AdversarialSet(**arrays, origin=origin)
    except io.DAMAGED as error:
        raise errors.InputError(f'{path} is damaged: {error}; delete it and make it again') from error


def _path(directory: os.PathLike[str] | str) -> epath.Path:
    return epath.Path(directory) / 'adversarial.npz'


def load_if_made_from(directory: os.PathLike[str] | str, origin: Mapping[str, Any]) -> AdversarialSet | None:
    """Loads the adversarial set in a directory; None if it is missing, damaged, or not of exactly this origin."""
    try:
        loaded = load(directory)
    except errors.InputError:
        return None
    return loaded if loaded.origin == origin else None

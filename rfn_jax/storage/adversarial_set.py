"""Adversarial sets on disk: one file, `adversarial.npz`, that also says what its images were made from.

It holds `images`, `ids` and `labels`, and two strings: `origin` as JSON, and `sha256`, the hash of all the others. Being one
file, a set is replaced whole or not at all.
"""

import dataclasses
import json
import os

import numpy as np
from etils import epath

from rfn_jax.core import digests, errors, io


@dataclasses.dataclass(frozen=True)
class AdversarialSet:
    """Adversarial images as any image file would hold them, and where they come from.

    Attributes:
      images: uint8 `[N, H, W, C]`.
      ids: int64 `[N]`, the ids of the originals in their data set.
      labels: int32 `[N]`, the true classes.
      origin: What they were made from (data set, surrogate and the hash of its weights, attack, seed): plain JSON values.
    """

    images: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    origin: dict

    def of_ids(self, ids: np.ndarray) -> np.ndarray | None:
        """The images of some originals, in the order of `ids`; None if one is missing."""
        order = np.argsort(self.ids, kind='stable')
        places = np.searchsorted(self.ids, ids, sorter=order)
        if not len(self.ids) or np.any(places >= len(self.ids)):
            return None
        rows = order[places]
        return self.images[rows] if np.array_equal(self.ids[rows], ids) else None

    def united(self, other: 'AdversarialSet') -> 'AdversarialSet':
        """All examples of both, in the order of their ids; where both have one, that of `self`."""
        new = ~np.isin(other.ids, self.ids)
        ids = np.concatenate([self.ids, other.ids[new]])
        order = np.argsort(ids, kind='stable')
        images = np.concatenate([self.images, other.images[new]])[order]
        labels = np.concatenate([self.labels, other.labels[new]])[order]
        return dataclasses.replace(self, images=images, ids=ids[order], labels=labels)


def save(adversarial: AdversarialSet, directory: os.PathLike | str) -> None:
    """Writes `adversarial.npz`, in place of the set that is there.

    Raises:
      RunError: The disk is full or the directory cannot be written; an older set stays as it was.
    """
    arrays = {'images': adversarial.images, 'ids': adversarial.ids, 'labels': adversarial.labels}
    arrays['origin'] = np.array(json.dumps(adversarial.origin, sort_keys=True))
    io.write_bytes(_path(directory), io.npz_bytes(**arrays, sha256=np.array(digests.of_arrays(arrays))))


def load(directory: os.PathLike | str) -> AdversarialSet:
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
                raise ValueError('its SHA-256 is not the one that was saved')
        origin = json.loads(str(arrays.pop('origin')))
        return AdversarialSet(**arrays, origin=origin)
    except io.DAMAGED as error:
        raise errors.InputError(f'{path} is damaged: {error}; delete it, and make it again') from error


def _path(directory: os.PathLike | str) -> epath.Path:
    return epath.Path(directory) / 'adversarial.npz'


def load_made_from(directory: os.PathLike | str, origin: dict) -> AdversarialSet | None:
    """The adversarial set of a directory if it is whole and of exactly this origin."""
    try:
        found = load(directory)
    except errors.InputError:
        return None
    return found if found.origin == origin else None

"""Adversarial sets on disk: `adversarial.npz` with a JSON manifest beside it."""

import dataclasses
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
    """Writes `adversarial.npz`, then `manifest.json` with its origin and the SHA-256 of the first.

    Raises:
      RunError: The disk is full or the directory cannot be written; an older set stays as it was or is not taken for
        this one, since the hash in its manifest differs.
    """
    content = io.npz_bytes(images=adversarial.images, ids=adversarial.ids, labels=adversarial.labels)
    directory = epath.Path(directory)
    io.write_bytes(directory / 'adversarial.npz', content)
    manifest = {'origin': adversarial.origin, 'sha256': digests.of_bytes(content)}
    io.write_json(directory / 'manifest.json', manifest)


def load(directory: os.PathLike | str) -> AdversarialSet:
    """Reads an adversarial set and checks its hash; nothing is unpickled.

    Raises:
      InputError: A file is missing, or is not the one that the manifest describes.
    """
    directory = epath.Path(directory)
    manifest = io.read_json(directory / 'manifest.json')
    try:
        content = (directory / 'adversarial.npz').read_bytes()
        if digests.of_bytes(content) != manifest['sha256']:
            raise ValueError('its SHA-256 is not the one in manifest.json')
        with io.npz_arrays(content) as arrays:
            return AdversarialSet(arrays['images'], arrays['ids'], arrays['labels'], manifest['origin'])
    except io.DAMAGED as error:
        raise errors.InputError(f'could not read {directory / "adversarial.npz"}: {error}') from error


def load_made_from(directory: os.PathLike | str, origin: dict) -> AdversarialSet | None:
    """The adversarial set of a directory if it is whole and of exactly this origin."""
    try:
        found = load(directory)
    except errors.InputError:
        return None
    return found if found.origin == origin else None

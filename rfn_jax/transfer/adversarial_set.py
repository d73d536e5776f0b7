"""Adversarial sets on disk: `adversarial.npz` with a JSON manifest beside it."""

import dataclasses
import hashlib
import io
import os
import pathlib
import zipfile
import zlib

import numpy as np

from rfn_jax.core import errors, files


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


def save(adversarial: AdversarialSet, directory: os.PathLike | str) -> None:
    """Writes `adversarial.npz`, then `manifest.json` with its origin and the SHA-256 of the first.

    Raises:
      RunError: The disk is full or the directory cannot be written; an older set stays as it was or is not taken for
        this one, since the hash in its manifest differs.
    """
    content = io.BytesIO()
    np.savez_compressed(content, images=adversarial.images, ids=adversarial.ids, labels=adversarial.labels)
    directory = pathlib.Path(directory)
    files.write_bytes(directory / 'adversarial.npz', content.getvalue())
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    files.write_json(directory / 'manifest.json', {'origin': adversarial.origin, 'sha256': digest})


def load(directory: os.PathLike | str) -> AdversarialSet:
    """Reads an adversarial set and checks its hash; nothing is unpickled.

    Raises:
      InputError: A file is missing, or is not the one that the manifest describes.
    """
    directory = pathlib.Path(directory)
    manifest = files.read_json(directory / 'manifest.json')
    try:
        content = (directory / 'adversarial.npz').read_bytes()
        if hashlib.sha256(content).hexdigest() != manifest['sha256']:
            raise ValueError('its SHA-256 is not the one in manifest.json')
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return AdversarialSet(arrays['images'], arrays['ids'], arrays['labels'], manifest['origin'])
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise errors.InputError(f'could not read {directory / "adversarial.npz"}: {error}') from error


def is_made_from(directory: os.PathLike | str, origin: dict) -> bool:
    """Whether the directory holds a whole adversarial set of exactly this origin."""
    try:
        return load(directory).origin == origin
    except errors.InputError:
        return False

"""Writes the weights of a trained network in bfloat16, as safetensors files of at most 15 MiB each.

python tests/device/pieces.py WORKDIR/surrogates/resnet18-rfn/seed0 OUT/resnet18-rfn [EPOCH]

writes `OUT/resnet18-rfn.0.safetensors`, `OUT/resnet18-rfn.1.safetensors`, ... for an epoch, by default the last one.
"""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.flax import save

from rfn_jax import storage
from rfn_jax.core import io

MAX_BYTES = 15 * 2**20


def pieces(arrays: dict[str, jax.Array], max_bytes: int) -> list[dict[str, jax.Array]]:
    """Groups of consecutive arrays with at most `max_bytes` per group; an array larger than that gets a group of its own."""
    groups: list[dict[str, jax.Array]] = [{}]
    size = 0
    for name, array in arrays.items():
        if groups[-1] and size + array.nbytes > max_bytes:
            groups.append({})
            size = 0
        groups[-1][name] = array
        size += array.nbytes
    return groups


def main(folder: str, out: str, epoch: str | None = None) -> None:
    _, epoch = storage.open_checkpoint(folder, None if epoch is None else int(epoch))
    classifier = storage.load(folder, epoch)
    about = {**dataclasses.asdict(storage.read_network(folder)), 'epoch': epoch}
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator='.'): jnp.asarray(np.asarray(leaf), jnp.bfloat16)
        for path, leaf in jax.tree_util.tree_leaves_with_path(classifier.variables)
    }
    metadata = {'rfn_jax': json.dumps(about, sort_keys=True)}
    for number, piece in enumerate(pieces(arrays, MAX_BYTES)):
        io.write_bytes(f'{out}.{number}.safetensors', save(piece, metadata))


if __name__ == '__main__':
    main(*sys.argv[1:])

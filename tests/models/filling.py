"""The rule that fills the weights and images for the golden logits: a function of names and shapes only.

Entry i of the tensor with key k of a PyTorch state dict is computed from a uniform number u in [0, 1):

    running_var                              0.5 + u
    weight of one axis, layer_scale          0.5 + u         (scales of normalizations and of branches)
    weight of more, in_proj_weight           (2 u - 1) sqrt(6 / fan_in), fan_in = product of all axes but the first
    all others                               0.2 (u - 0.5)   (biases, running means, tokens, positions)

and u comes from SplitMix64 (https://prng.di.unimi.it/splitmix64.c), seeded with the first 8 bytes of the SHA-256 of k.
This module needs only NumPy; it is imported by the tests and by the script that runs torchvision.
"""

import hashlib
import math

import numpy as np

CHUNK = 1 << 18


def affine(key: str, shape: tuple[int, ...], scale: float, offset: float) -> np.ndarray:
    """`scale * u + offset`, computed in float64 and rounded to float32."""
    start = np.frombuffer(hashlib.sha256(key.encode()).digest()[:8], '<u8')[0]
    out = np.empty(math.prod(shape), np.float32)
    with np.errstate(over='ignore'):
        for first in range(0, out.size, CHUNK):  # a few megabytes at a time stay in the cache
            stop = min(first + CHUNK, out.size)
            z = start + np.arange(first + 1, stop + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
            out[first:stop] = (z >> np.uint64(11)) * (scale / 2**53) + offset
    return out.reshape(shape)


def tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 tensor of a key."""
    name = key.rsplit('.', 1)[-1]
    if name in ('running_var', 'layer_scale') or (name == 'weight' and len(shape) == 1):
        return affine(key, shape, 1, 0.5)
    if name in ('weight', 'in_proj_weight'):
        bound = math.sqrt(6 / math.prod(shape[1:]))
        return affine(key, shape, 2 * bound, -bound)
    return affine(key, shape, 0.2, -0.1)


def images(count: int, size: int) -> np.ndarray:
    """Normalized float32 images `[count, size, size, 3]`: 8 x 8 tiles of a color each, and a tenth of noise."""
    tiles = affine('tiles', (count, 8, 8, 3), 4, -2)
    at = np.arange(size) * 8 // size
    return tiles[:, at][:, :, at] + affine('noise', (count, size, size, 3), 0.4, -0.2)

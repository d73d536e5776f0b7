"""Batches of examples in memory, selected by position, for the steps that tests run."""

import numpy as np

from rfn_jax import data


def batch_of(examples, positions):
    """Returns a `Batch` of host arrays: `[B, ...]`, or `[k, B, ...]` if the positions are `[k, B]`."""
    positions = np.asarray(positions)
    return data.Batch(examples.images[positions], examples.labels[positions], examples.ids[positions].astype(np.uint32))

"""Helpers for the tests of training: batches of examples in memory, and the metrics that a run left."""

import json

import numpy as np

from rfn_jax import data


def batch_of(examples, positions):
    """Returns a `Batch` of host arrays: `[B, ...]`, or `[k, B, ...]` if the positions are `[k, B]`."""
    positions = np.asarray(positions)
    return data.Batch(examples.images[positions], examples.labels[positions], examples.ids[positions].astype(np.uint32))


def metrics_of(directory):
    """The metrics of each epoch, without the time, which differs from run to run."""
    lines = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != 'seconds'} for line in lines]

"""`configs/cifar10_accelerator.py` with the data in the file that the environment variable CIFAR10_NPZ names.

`pack_cifar10.py unpack` makes that file.
"""

import os

import ml_collections

from rfn_jax.configs import cifar10_accelerator


def get_config() -> ml_collections.ConfigDict:
    """The config, with `arrays` as its data source."""
    config = cifar10_accelerator.get_config()
    config.data = {'name': 'arrays', 'path': os.environ['CIFAR10_NPZ'], 'validation_examples': 5_000}
    return config

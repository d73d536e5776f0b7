"""`configs/cifar10_accelerator.py` on the file that `pack_cifar10.py` unpacks; CIFAR10_NPZ in the environment names it."""

import os

import ml_collections

from rfn_jax.configs import cifar10_accelerator


def get_config() -> ml_collections.ConfigDict:
    """The config with `arrays` for its data."""
    config = cifar10_accelerator.get_config()
    config.data = {'name': 'arrays', 'path': os.environ['CIFAR10_NPZ'], 'validation_examples': 5_000}
    return config

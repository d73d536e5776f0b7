"""Plain SGD on ImageNet, and where to stop it early: the baselines of `imagenet_rfn.py` alone.

    TFDS_DATA_DIR=... rfn-jax run --config=configs/imagenet_sgd.py --workdir=runs/imagenet_rfn

With the same work directory, `imagenet_rfn.py` then trains only what is missing. No time and no score are given here, since
this config has not been run to its end.
"""

import ml_collections

from rfn_jax.configs import imagenet_rfn


def get_config() -> ml_collections.ConfigDict:
    """The config of `imagenet_rfn.py` without the training that it compares with SGD."""
    config = imagenet_rfn.get_config()
    config.name = 'imagenet_sgd'
    del config.trainings.rfn
    return config

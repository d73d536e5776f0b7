"""Small targets of five families, trained on 45 000 CIFAR-10 images: for surrogates that are trained on other, fewer images.

    TFDS_DATA_DIR=... rfn-jax train --config=configs/cifar10_targets.py --workdir=runs/cifar10_targets --only=targets

Each has 0.1 to 0.4 million parameters, and computes on images of half the size after its first layer, so that a CPU trains it
in minutes. The 5000 validation images and the test images are not used.
"""

import ml_collections

from rfn_jax.configs import cifar10


def get_config() -> ml_collections.ConfigDict:
    """The config of `cifar10.py` with small targets, a shorter schedule, and a surrogate that is not meant to be trained."""
    config = cifar10.get_config()
    config.name = 'cifar10_targets'
    config.optim.update(epochs=20, batch_size=128, learning_rate=0.1, decay_epochs=(10, 15))
    inverted = ((1, 16, 1, 1), (4, 24, 2, 1), (4, 40, 2, 2), (4, 80, 2, 2))
    config.targets = {
        'resnet': {'model': {'name': 'resnet', 'stage_sizes': (1, 1, 1), 'widths': (24, 48, 96), 'stem_strides': 2}},
        'vgg': {'model': {'name': 'vgg', 'stages': ((24,), (48, 48), (96, 96), (128,))}},
        'mobilenet_v2': {'model': {'name': 'mobilenet_v2', 'stages': inverted, 'stem_strides': 2, 'dropout': 0.0}},
        'densenet': {
            'model': {
                'name': 'densenet',
                'block_sizes': (4, 4, 4),
                'growth_rate': 12,
                'stem_kernel': 3,
                'stem_strides': 2,
            }
            | {'initial_features': 24, 'stem_pool': False}
        },
        'vit': {
            'model': {'name': 'vit', 'patch_size': 4, 'width': 96, 'depth': 4, 'heads': 3, 'mlp_width': 192},
            'optim': {'learning_rate': 0.02},
        },
    }
    return config

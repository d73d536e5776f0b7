"""RFN against early stopping and plain SGD on handwritten digits: what `rfn-jax quickstart` runs.

    rfn-jax quickstart
    rfn-jax run --config=configs/digits.py --workdir=runs/digits     (the same)

Needs no files, no network and no accelerator; 4 min 36 s and 1.3 GB on two cores of a Xeon. Mean black-box success of three
seeds on 478 test images: SGD 55.7 %, early-stopped SGD 56.4 %, RFN 62.6 %; natural accuracy 98.4, 98.6 and 99.1 %.
"""

import ml_collections

from rfn_jax.configs import cifar10


def get_config() -> ml_collections.ConfigDict:
    """The config of `cifar10.py` with digits, small networks, a shorter schedule and a larger budget."""
    config = cifar10.get_config()
    config.name = 'digits'
    config.data = {'name': 'digits'}
    config.augmentation.update(crop_padding=0, flip=False)
    config.optim.update(epochs=40, batch_size=100, decay_epochs=(20, 30))

    config.surrogates = {'resnet': {'name': 'resnet', 'stage_sizes': (1, 1, 1), 'widths': (16, 32, 64)}}
    shorter = {'epochs': 30, 'decay_epochs': (15, 23)}
    config.targets = {
        'resnet_2_blocks': {
            'model': {'name': 'resnet', 'stage_sizes': (2, 2, 2), 'widths': (8, 16, 32)},
            'optim': shorter,
        },
        'vgg': {'model': {'name': 'vgg', 'stages': ((16, 16), (32, 32), (64, 64))}, 'optim': shorter},
        'mlp': {'model': {'name': 'mlp', 'widths': (256, 256)}, 'optim': shorter},
        'vit': {
            'model': {'name': 'vit', 'patch_size': 2, 'width': 48, 'depth': 3, 'heads': 3, 'mlp_width': 96},
            'optim': {**shorter, 'learning_rate': 0.02},
        },
    }
    config.validation_targets = {
        'resnet_wide': {'model': {'name': 'resnet', 'stage_sizes': (1, 1), 'widths': (24, 48)}, 'optim': shorter},
        'vgg_small': {'model': {'name': 'vgg', 'stages': ((16,), (32,), (64,))}, 'optim': shorter},
        'mlp_deep': {'model': {'name': 'mlp', 'widths': (128, 128, 128)}, 'optim': shorter},
    }

    config.attacks.bim.update(eps=0.2, steps=30)  # validation.attack.eps changes with it
    config.validation.attack.steps = 10
    config.validation.examples = 200
    config.evaluation.batch_size = 200
    return config

"""RFN against early stopping and plain SGD on all of CIFAR-10, in minutes on one accelerator.

    TFDS_DATA_DIR=... rfn-jax run --config=configs/cifar10_accelerator.py --workdir=runs/cifar10_accelerator

A ResNet-18 for small images on all 45 000 training images, 30 epochs with decays at half and three quarters, computed in
bfloat16; SGD, and SAM with rho = 0.05, 0.2 and 0.4 (RFN). Targets of other families on the same images.

Cut off after 255 s of training on one H200: mean black-box success of SGD 24.9 %, early-stopped SGD 35.2 %, RFN 44.1 % on two
of the targets, one seed; see docs/accelerator.md. It has not been run to its end.
"""

import ml_collections
from rfn_jax.configs import cifar10


def get_config() -> ml_collections.ConfigDict:
    """The config of `cifar10.py` with a fifth of the epochs, one seed, and targets that train in seconds."""
    config = cifar10.get_config()
    config.name = 'cifar10_accelerator'
    config.seeds = 1
    config.optim.update(epochs=30, decay_epochs=(15, 22.5))
    config.trainings = {
        'sgd': {'name': 'sgd'},
        'rfn': {'name': 'rfn_sam', 'rho': config.optim.get_ref('rho')},
        'rho_0_2': {'name': 'sam', 'rho': 0.2},
        'sam': {'name': 'sam', 'rho': 0.05},
    }
    config.surrogates = {'resnet18': network('cifar_resnet18')}
    shorter = {'epochs': 12, 'decay_epochs': (6, 9)}
    config.targets = {
        'vgg13': {'model': network('cifar_vgg13'), 'optim': shorter},
        'wide_resnet16_4': {'model': network('cifar_wide_resnet16_4'), 'optim': shorter},
        'resnet56': {'model': network('cifar_resnet56'), 'optim': shorter},
        'vit': {'model': network('cifar_vit'), 'optim': {**shorter, 'learning_rate': 0.01}},
    }
    config.validation_targets = {
        name: {'model': network(f'cifar_{name}'), 'optim': shorter} for name in ('vgg11', 'resnet20')
    }
    config.validation.update(examples=500, every_epochs=6)
    return config


def network(name: str) -> dict[str, str]:
    """A network that trains, and is attacked, in bfloat16; it is measured in float32."""
    return {'name': name, 'dtype': 'bfloat16'}

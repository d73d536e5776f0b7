"""RFN with a ViT and a ConvNeXt as surrogates, on CIFAR-10 and two CPU cores.

    TFDS_DATA_DIR=... rfn-jax run --config=configs/cifar10_cpu_architectures.py --workdir=runs/cifar10_cpu_architectures

The data, targets and attack of `cifar10_cpu.py`.
"""

import ml_collections
from rfn_jax.configs import cifar10_cpu


def get_config() -> ml_collections.ConfigDict:
    """The config of `cifar10_cpu.py` with other surrogates, one seed each and a smaller learning rate."""
    config = cifar10_cpu.get_config()
    config.name = 'cifar10_cpu_architectures'
    config.seeds = 1
    config.optim.learning_rate = 0.02
    for target in (*config.targets.values(), *config.validation_targets.values()):
        target.optim = {'learning_rate': 0.05, **target.optim}  # as there
    config.surrogates = {
        'vit': {'name': 'vit', 'patch_size': 4, 'width': 96, 'depth': 4, 'heads': 3, 'mlp_width': 192},
        'convnext': {
            'name': 'cifar_convnext',
            'patch_size': 4,
            'depths': (2, 2),
            'widths': (48, 96),
            'kernel_size': 3,  # depthwise convolutions of 7 x 7 take most of the time on a CPU
        },
    }
    return config

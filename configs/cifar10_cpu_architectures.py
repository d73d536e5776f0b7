"""RFN with a ViT and a ConvNeXt as surrogates, on CIFAR-10 with two CPU cores.

    TFDS_DATA_DIR=... rfn-jax run --config=configs/cifar10_cpu_architectures.py --workdir=runs/cifar10_cpu_architectures

The data, targets and attack are those of `cifar10_cpu.py`. Mean black-box success of one seed on 500 test images (in
parentheses: white-box success; natural accuracy), on two cores of a Xeon that also did other work, in 27 minutes without the
targets, which were already trained for that config:

    ConvNeXt   SGD 11.3 % (100.0; 29.8)   early-stopped SGD  9.5 % (97.6; 27.6)   RFN 12.7 % (83.4; 28.2)
    ViT        SGD 18.6 % ( 99.4; 43.3)   early-stopped SGD 18.8 % (99.2; 42.3)   RFN 15.1 % (91.0; 34.7)

RFN gains 1.4 points over SGD with the ConvNeXt (0.1 to 2.7) and loses 3.5 with the ViT (2.2 to 4.9). Neither network fits its
3000 images here (32 and 59 % of them with SGD, 28 and 36 % with RFN), and a large rho can only hurt in that case: this says
nothing about transformers in general.
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
        target.optim = {'learning_rate': 0.05, **target.optim}  # as in that config
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

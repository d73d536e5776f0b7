"""RFN against early stopping and plain SGD on all of CIFAR-10, in minutes on one accelerator.

    TFDS_DATA_DIR=... rfn-jax run --config=configs/cifar10_accelerator.py --workdir=runs/cifar10_accelerator

A ResNet-18 for small images is trained on all 45 000 training images for 30 epochs, with learning-rate decays at half and
three quarters of the training, in bfloat16: with SGD, and with SAM at rho = 0.05, 0.2 and 0.4 (RFN). The targets are small
networks from five families (0.2 to 0.5 million parameters), trained on the same images.

On one H100, in 388 s, without two of the targets and without rho = 0.05, the mean black-box success for one seed was 37.4 %
with SGD, 40.6 % with early-stopped SGD, 50.3 % with rho = 0.2 and 41.2 % with RFN; see docs/accelerator.md.
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
    config.targets = {
        'resnet20': target('cifar_resnet20'),
        'vgg': target('vgg', stages=((32, 32), (64, 64), (128, 128))),
        'mobilenet': target('cifar_mobilenet_v2', width_multiplier=0.35),
        'densenet': target(
            'densenet',
            block_sizes=(8, 8, 8),
            growth_rate=12,
            initial_features=24,
            stem_kernel=3,
            stem_strides=1,
            stem_pool=False,
        ),
        'vit': target('vit', patch_size=4, width=96, depth=6, heads=3, mlp_width=192),
    }
    config.targets.vit.optim = {'learning_rate': 0.01}
    shorter = {'epochs': 15, 'decay_epochs': (7.5, 11.25)}
    config.validation_targets = {
        'wide_resnet10_2': {**target('cifar_wide_resnet', depth=10, widen_factor=2), 'optim': shorter},
        'vgg_short': {**target('vgg', stages=((48,), (96,), (192,))), 'optim': shorter},
    }
    config.validation.attack.steps = 20
    config.validation.update(examples=300, every_epochs=3)
    return config


def network(name: str, **options) -> dict:
    """A network that is trained and attacked in bfloat16, and measured in float32."""
    return {'name': name, 'dtype': 'bfloat16', **options}


def target(name: str, **options) -> dict:
    """A target that is trained for as long as the surrogates."""
    return {'model': network(name, **options)}

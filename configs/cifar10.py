"""RFN against early stopping and plain SGD on CIFAR-10, with the settings of the paper (arXiv 2304.02688).

    TFDS_DATA_DIR=... rfn-jax run --config=configs/cifar10.py --workdir=runs/cifar10

ResNet-18 surrogates, 150 epochs, rho = 0.4, BIM with eps = 4/255 and 50 steps of eps/10, on about 1000 test images that all
targets classify correctly. Of the paper's ten target families those that the zoo has so far. For an accelerator.
No time and no score are given here, since this config has not been run to its end.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The config; any value can be overridden on the command line, such as `--config.optim.rho=0.2`."""
    config = ml_collections.ConfigDict()
    config.name = 'cifar10'
    config.seed = 0
    config.seeds = 3  # surrogates of each training
    config.data = {
        'name': 'cifar10',
        'data_dir': '',  # by default TFDS_DATA_DIR, then the default of TFDS
        'train_examples': 45_000,
        'validation_examples': 5_000,
        'test_examples': 10_000,
    }
    config.augmentation = {'crop_padding': 4, 'flip': True}

    config.optim = {
        'epochs': 150,
        'batch_size': 128,
        'learning_rate': 0.05,
        'momentum': 0.9,
        'weight_decay': 5e-4,
        'decay_epochs': (50, 100),
        'decay_factor': 0.1,
        'rho': 0.4,
    }
    config.trainings = {'sgd': {'name': 'sgd'}, 'rfn': {'name': 'rfn_sam', 'rho': config.optim.get_ref('rho')}}
    config.early_stopping = {'early_stopped': 'sgd'}  # the first stops the second

    config.surrogates = {'resnet18': {'name': 'resnet18'}}
    config.targets = {
        'resnet50': {'model': {'name': 'resnet50'}},
        'resnet101': {'model': {'name': 'resnet101'}},
        'vgg13': {'model': {'name': 'vgg13'}},
        'vgg19': {'model': {'name': 'vgg19'}},
        'vit': {'model': {'name': 'vit', 'patch_size': 4}, 'optim': {'learning_rate': 0.01}},
    }
    config.validation_targets = {
        'resnet34': {'model': {'name': 'resnet', 'stage_sizes': (3, 4, 6, 3)}},
        'cifar_resnet56': {'model': {'name': 'cifar_resnet', 'depth': 56}},
        'vgg_small': {'model': {'name': 'vgg', 'stages': ((64,), (128,), (256, 256), (512, 512))}},
    }

    config.attacks = {'bim': {'name': 'bim', 'eps': 4 / 255, 'steps': 50}}
    # What chooses the early-stopping epoch: an attack on validation images, measured on the validation targets.
    config.validation = {
        'attack': {'name': 'bim', 'eps': config.attacks.bim.get_ref('eps'), 'steps': 50},
        'examples': 1000,
        'every_epochs': 2,
    }
    config.evaluation = {'examples': 1000, 'batch_size': 500}
    return config

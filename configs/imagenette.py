"""RFN against early stopping and plain SGD on Imagenette, ten classes of ImageNet, at 160x160 on one accelerator.

    TFDS_DATA_DIR=... rfn-jax run --config=configs/imagenette.py --workdir=runs/imagenette

Imagenette (https://github.com/fastai/imagenette) has 9469 training and 3925 test images. Prepare it with TFDS (`imagenette`),
or unpack its archive and use `rfn-jax prepare`, or an image folder as it is: `--config.data.name=image_folder`. All targets are
trained here on the same images; see `imagenet_rfn.py` for pretrained targets. No time and no score are given here, since
this config has not been run to its end.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The config; any value can be overridden on the command line, such as `--config.optim.rho=0.2`."""
    config = ml_collections.ConfigDict()
    config.name = 'imagenette'
    config.seed = 0
    config.seeds = 3  # number of surrogates for each training
    config.data = {
        'name': 'tfds',
        'dataset': 'imagenette/160px-v2',
        'data_dir': '',  # by default TFDS_DATA_DIR, then the default of TFDS
        'image_size': 160,
        'resize': 160,
        'validation_examples': 1_000,  # held out from the training images
    }
    config.augmentation = {'random_resized_crop': (0.35, 1.0), 'flip': True}

    config.optim = {
        'epochs': 100,
        'batch_size': 128,
        'learning_rate': 0.05,
        'momentum': 0.9,
        'weight_decay': 5e-4,
        'decay_epochs': (40, 70),
        'decay_factor': 0.1,
        'rho': 0.2,
    }
    config.trainings = {'sgd': {'name': 'sgd'}, 'rfn': {'name': 'rfn_sam', 'rho': config.optim.get_ref('rho')}}
    config.early_stopping = {'early_stopped': 'sgd'}  # NAME: TRAINING, where NAME is TRAINING stopped early
    config.baselines = ('sgd', 'early_stopped')  # what the others are compared with

    config.surrogates = {'resnet18': {'name': 'resnet18', 'dtype': 'bfloat16'}}
    transformer = {'learning_rate': 0.01}
    config.targets = {
        'resnet34': {'model': {'name': 'resnet34', 'dtype': 'bfloat16'}},
        'vgg13_bn': {'model': {'name': 'vgg13_bn', 'dtype': 'bfloat16'}},
        'densenet121': {'model': {'name': 'densenet121', 'dtype': 'bfloat16'}},
        'mobilenet_v2': {'model': {'name': 'mobilenet_v2', 'dtype': 'bfloat16'}},
        'convnext_tiny': {'model': {'name': 'convnext_tiny', 'dtype': 'bfloat16'}, 'optim': transformer},
    }
    config.validation_targets = {
        'resnet50': {'model': {'name': 'resnet50', 'dtype': 'bfloat16'}},
        'vgg11_bn': {'model': {'name': 'vgg11_bn', 'dtype': 'bfloat16'}},
        'mobilenet_v3_large': {'model': {'name': 'mobilenet_v3_large', 'dtype': 'bfloat16'}},
    }

    config.attacks = {'bim': {'name': 'bim', 'eps': 4 / 255, 'steps': 50}}
    # The early-stopping epoch is chosen with this attack on validation images, measured on the validation targets.
    config.validation = {
        'attack': {'name': 'bim', 'eps': config.attacks.bim.get_ref('eps'), 'steps': 50},
        'examples': 500,
        'every_epochs': 2,
    }
    config.evaluation = {'examples': 1000, 'batch_size': 250, 'balanced': True}
    return config

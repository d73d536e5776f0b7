"""RFN against early stopping and plain SGD on CIFAR-10, with the settings of the paper (arXiv 2304.02688).

    TFDS_DATA_DIR=... rfn-jax run --config=configs/cifar10.py --workdir=runs/cifar10

For an accelerator: ResNet-18 and ResNet-50 surrogates, 150 epochs, rho = 0.4, BIM with eps = 4/255 and 50 steps of eps/10, on
about 1000 test images that all of the paper's ten targets classify correctly. The paper does not say how its targets were
trained; here they are trained like the surrogates, except that the ViT has a smaller learning rate. To use imported weights
instead of training a target, replace its entry with `{'network': DIRECTORY}`; see `rfn-jax import-weights`. No time and no
score are given here, since this config has not been run to its end.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """The config; any value can be overridden on the command line, such as `--config.optim.rho=0.2`."""
    config = ml_collections.ConfigDict()
    config.name = 'cifar10'
    config.seed = 0
    config.seeds = 3  # number of surrogates for each training
    config.data = {
        'name': 'cifar10',
        'data_dir': '',  # by default TFDS_DATA_DIR, then the default of TFDS
        'train_examples': 45_000,
        'validation_examples': 5_000,
        'test_examples': 10_000,
    }
    config.augmentation = {
        'crop_padding': 4,
        'flip': True,
        'random_resized_crop': config_dict.placeholder(
            tuple
        ),  # (min_area, max_area), such as (0.08, 1.0); None for none
        'rand_augment': config_dict.placeholder(tuple),  # (num_ops, magnitude), such as (2, 9); None for none
        'mixup': 0.0,  # alpha; 0 for none
        'cutmix': 0.0,  # alpha; 0 for none
    }

    config.optim = {
        'epochs': 150,
        'batch_size': 128,
        'learning_rate': 0.05,
        'momentum': 0.9,
        'weight_decay': 5e-4,
        'label_smoothing': 0.0,
        'warmup_epochs': 0.0,  # over which the learning rate first grows; for large batches
        'decay_epochs': (50, 100),
        'decay_factor': 0.1,
        'seeds_at_once': 1,  # seeds that are trained in one program, as many as fit into the memory of a device
        'rho': 0.4,
    }
    config.trainings = {'sgd': {'name': 'sgd'}, 'rfn': {'name': 'rfn_sam', 'rho': config.optim.get_ref('rho')}}
    config.early_stopping = {'early_stopped': 'sgd'}  # NAME: TRAINING, where NAME is TRAINING stopped early
    config.baselines = ('sgd', 'early_stopped')  # what the others are compared with

    config.surrogates = {'resnet18': {'name': 'cifar_resnet18'}, 'resnet50': {'name': 'cifar_resnet50'}}
    transformer = {'learning_rate': 0.01}
    config.targets = {
        'resnet18': {'model': {'name': 'cifar_resnet18'}},
        'resnet50': {'model': {'name': 'cifar_resnet50'}},
        'resnet101': {'model': {'name': 'cifar_resnet101'}},
        'wide_resnet28_10': {'model': {'name': 'cifar_wide_resnet28_10'}},
        'vgg13': {'model': {'name': 'cifar_vgg13'}},
        'vgg19': {'model': {'name': 'cifar_vgg19'}},
        'densenet161': {'model': {'name': 'cifar_densenet161'}},
        'densenet201': {'model': {'name': 'cifar_densenet201'}},
        'inception_v3': {'model': {'name': 'cifar_inception_v3'}},
        'vit': {'model': {'name': 'cifar_vit'}, 'optim': transformer},
    }
    config.validation_targets = {
        'resnet34': {'model': {'name': 'cifar_resnet34'}},
        'cifar_resnet56': {'model': {'name': 'cifar_resnet56'}},
        'vgg11': {'model': {'name': 'cifar_vgg11'}},
        'densenet121': {'model': {'name': 'cifar_densenet121'}},
        'convnext': {'model': {'name': 'cifar_convnext'}, 'optim': transformer},
    }

    config.attacks = {'bim': {'name': 'bim', 'eps': 4 / 255, 'steps': 50}}
    # The early-stopping epoch is chosen with this attack on validation images, measured on the validation targets.
    config.validation = {
        'attack': {'name': 'bim', 'eps': config.attacks.bim.get_ref('eps'), 'steps': 50},
        'examples': 1000,
        'every_epochs': 2,
    }
    config.evaluation = {'examples': 1000, 'batch_size': 500}
    return config

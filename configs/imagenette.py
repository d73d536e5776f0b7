"""RFN against early stopping and plain SGD on Imagenette, ten classes of ImageNet, at 160x160 on one accelerator.

    TFDS_DATA_DIR=... rfn-jax run --config=configs/imagenette.py --workdir=runs/imagenette

Imagenette (https://github.com/fastai/imagenette) has 9469 training and 3925 test images. Prepare it with TFDS
(`imagenette`), or unpack its archive and use `rfn-jax prepare`, or an image folder as it is:
`--config.data.name=image_folder`. All targets are trained here on the same images; see `imagenet_rfn.py` for pretrained
targets. No time and no score are given here, since this config has not been run to its end.
"""

import ml_collections

from rfn_jax.configs import cifar10


def get_config() -> ml_collections.ConfigDict:
    """The config of `cifar10.py` with other data, networks for it, and a shorter schedule."""
    config = cifar10.get_config()
    config.name = 'imagenette'
    config.data = {
        'name': 'tfds',
        'dataset': 'imagenette/160px-v2',
        'data_dir': '',  # by default TFDS_DATA_DIR, then the default of TFDS
        'image_size': 160,
        'resize': 160,
        'validation_examples': 1_000,  # held out from the training images
    }
    config.augmentation.update(crop_padding=0, random_resized_crop=(0.35, 1.0))
    config.optim.update(epochs=100, decay_epochs=(40, 70), rho=0.2)

    config.surrogates = {'resnet18': {'name': 'resnet18', 'dtype': 'bfloat16'}}
    config.targets = {
        'resnet34': {'model': {'name': 'resnet34', 'dtype': 'bfloat16'}},
        'vgg13_bn': {'model': {'name': 'vgg13_bn', 'dtype': 'bfloat16'}},
        'densenet121': {'model': {'name': 'densenet121', 'dtype': 'bfloat16'}},
        'mobilenet_v2': {'model': {'name': 'mobilenet_v2', 'dtype': 'bfloat16'}},
        'convnext_tiny': {'model': {'name': 'convnext_tiny', 'dtype': 'bfloat16'}, 'optim': {'learning_rate': 0.01}},
    }
    config.validation_targets = {
        'resnet50': {'model': {'name': 'resnet50', 'dtype': 'bfloat16'}},
        'vgg11_bn': {'model': {'name': 'vgg11_bn', 'dtype': 'bfloat16'}},
        'mobilenet_v3_large': {'model': {'name': 'mobilenet_v3_large', 'dtype': 'bfloat16'}},
    }

    config.validation.examples = 500
    config.evaluation = {'examples': 1000, 'batch_size': 250, 'balanced': True}
    return config

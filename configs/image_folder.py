"""RFN against early stopping and plain SGD on your own images: a template to run as it is, or to copy and change.

    rfn-jax run --config=configs/image_folder.py:path/to/images --workdir=runs/mine

The folder holds one folder of images for each class, or `train`, `val` and `test` folders of these; see
`rfn_jax.data.image_folder`. The images are scaled to 64x64, so that small networks can be trained on a CPU. On an
accelerator, raise `image_size` to 224 and use architectures such as `resnet50` (`rfn-jax list` shows them).
"""

import ml_collections

from rfn_jax.configs import cifar10


def get_config(directory: str = '') -> ml_collections.ConfigDict:
    """The config of `cifar10.py` with an image folder and small networks.

    Args:
      directory: The image folder; it follows the name of the config after a colon.
    """
    config = cifar10.get_config()
    config.name = 'image_folder'
    config.seeds = 2
    config.data = {
        'name': 'image_folder',
        'directory': directory,
        'image_size': 64,
        'validation_fraction': 0.15,  # used if the folder has no images for validation
        'test_fraction': 0.25,  # used if the folder has no images for testing
    }
    config.optim.update(epochs=40, batch_size=32, decay_epochs=(20, 30))
    config.optim.rho = 0.1  # raise it as long as the surrogate still fits its training images; the paper uses 0.4

    config.surrogates = {
        'resnet': {'name': 'resnet', 'stage_sizes': (1, 1, 1), 'widths': (32, 64, 128), 'stem_strides': 2}
    }
    config.targets = {
        'resnet_narrow': {
            'model': {'name': 'resnet', 'stage_sizes': (2, 2, 2), 'widths': (16, 32, 64), 'stem_strides': 2}
        },
        'vgg': {'model': {'name': 'vgg', 'stages': ((16,), (32,), (64,), (128,))}},
        'vit': {
            'model': {'name': 'vit', 'patch_size': 8, 'width': 64, 'depth': 3, 'heads': 4, 'mlp_width': 128},
            'optim': {'learning_rate': 0.02},
        },
    }
    config.validation_targets = {
        'resnet_wide': {
            'model': {'name': 'resnet', 'stage_sizes': (1, 1, 1), 'widths': (24, 48, 96), 'stem_strides': 2}
        },
        'vgg_small': {'model': {'name': 'vgg', 'stages': ((16,), (32,), (64,))}},
    }

    config.attacks.bim.update(eps=8 / 255, steps=20)  # validation.attack.eps changes with it
    config.validation.update(examples=200, every_epochs=4)
    config.validation.attack.steps = 10
    config.evaluation = {'examples': 1000, 'batch_size': 50, 'balanced': True}
    return config

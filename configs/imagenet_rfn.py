"""RFN against early stopping and plain SGD on ImageNet, with the settings of the paper (arXiv 2304.02688).

    TFDS_DATA_DIR=... rfn-jax run --config=configs/imagenet_rfn.py --workdir=runs/imagenet_rfn

For accelerators: a ResNet-50 surrogate trained for 90 epochs with rho = 0.4, BIM with eps = 4/255 and 50 steps of eps/10, on
about 1000 test images that all targets classify correctly. The paper's targets and the validation targets are pretrained
networks in `weights/`: see `rfn-jax import-weights`. Training and crafting compute in bfloat16; success is measured in
float32. `rfn-jax prepare` makes the data set from the official archives or from an image folder. No time and no score are
given here, since this config has not been run to its end.
"""

import ml_collections

from rfn_jax.configs import cifar10

TARGETS = (
    'resnet50', 'resnet152', 'resnext50_32x4d', 'wide_resnet50_2', 'densenet201', 'vgg19', 'googlenet', 'inception_v3',
    'vit_b_16', 'swin_b',
)  # fmt: skip
VALIDATION_TARGETS = ('resnet34', 'resnext101_32x8d', 'densenet121', 'vgg16', 'convnext_tiny')


def get_config() -> ml_collections.ConfigDict:
    """The config of `cifar10.py` with ImageNet, the paper's schedule for it, and pretrained targets."""
    config = cifar10.get_config()
    config.name = 'imagenet_rfn'
    config.seeds = 1
    config.data = {
        'name': 'tfds',
        'dataset': 'imagenet2012',
        'data_dir': '',  # by default TFDS_DATA_DIR, then the default of TFDS
        'test_split': 'validation',
        'image_size': 224,
        'resize': 256,
        'validation_examples': 2_000,  # held out from the training images
    }
    config.augmentation.update(crop_padding=0, random_resized_crop=(0.08, 1.0))
    config.optim.update(epochs=90, batch_size=256, learning_rate=0.1, weight_decay=1e-4, decay_epochs=(30, 60))
    config.optim.workers = 8  # processes that decode images

    config.surrogates = {'resnet50': {'name': 'resnet50', 'dtype': 'bfloat16'}}
    config.targets = {f'{name}_pretrained': {'network': f'weights/{name}'} for name in TARGETS}
    config.validation_targets = {name: {'network': f'weights/{name}'} for name in VALIDATION_TARGETS}

    config.validation.examples = 500
    config.evaluation = {'examples': 1000, 'batch_size': 250, 'balanced': True}
    return config

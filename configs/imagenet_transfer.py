"""Attacks on pretrained ImageNet networks, and their success on other pretrained networks; nothing is trained.

    rfn-jax import-weights ...                              (once for each network; see --help)
    rfn-jax run --config=configs/imagenet_transfer.py --config.data.directory=imagenet --workdir=runs/transfer
    rfn-jax run --config=configs/imagenet_transfer.py:weights/mine,weights/vgg19 ...    (other networks, the surrogate first)

By default the surrogate is a ResNet-50, and the targets are the paper's ten (arXiv 2304.02688), except that the ResNet-50
among them is replaced with a ResNet-101, since success on the surrogate itself is not transfer. They are network
directories in `weights/`. The attack is the paper's: BIM with eps = 4/255 and 50 steps of eps/10, on about 1000 images that
all targets classify correctly, here the same number from each class as far as possible.
"""

import pathlib

import ml_collections

from rfn_jax.configs import imagenet_rfn

TARGETS = tuple('resnet101' if name == 'resnet50' else name for name in imagenet_rfn.TARGETS)


def get_config(networks: str = '') -> ml_collections.ConfigDict:
    """The config; any value can be overridden on the command line, such as `--config.attacks.bim.eps=0.03`.

    Args:
      networks: Network directories, separated by commas: the surrogate, then the targets. It follows the name of the config
        after a colon.
    """
    paths = networks.split(',') if networks else [f'weights/{name}' for name in ('resnet50', *TARGETS)]
    surrogate, *targets = ({'network': path} for path in paths)

    config = ml_collections.ConfigDict()
    config.name = 'imagenet_transfer'
    config.seed = 0
    config.data = {
        'name': 'image_folder',
        'directory': 'imagenet',  # with the folders train and val; or use {'name': 'tfds', 'dataset': 'imagenet2012', ...}
        'classes': '',  # a file with the WordNet ids in the order of the classes; by default they are sorted, as usual
        'image_size': 224,
        'resize': 256,
        'interpolation': 'bilinear',
    }
    config.surrogates = {_name(surrogate): {**surrogate, 'as_is': True}}
    config.targets = {_name(target): target for target in targets}
    config.attacks = {'bim': {'name': 'bim', 'eps': 4 / 255, 'steps': 50}}
    config.evaluation = {'examples': 1000, 'batch_size': 50, 'balanced': True}
    return config


def _name(reference: dict[str, str]) -> str:
    """The name of a network in the tables: that of its directory."""
    return pathlib.Path(reference['network']).name.replace('-', '_')

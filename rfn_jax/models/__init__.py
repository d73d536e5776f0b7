"""The zoo of Flax models, and `Classifier`, which joins variables and preprocessing and maps [0, 1] images to logits."""

from rfn_jax.models import hooks
from rfn_jax.models.classifier import Classifier, abstract, full_precision, initialize, normalize
from rfn_jax.models.families.convnext import convnext
from rfn_jax.models.families.densenet import densenet
from rfn_jax.models.families.efficientnet import efficientnet
from rfn_jax.models.families.efficientnet_lite import efficientnet_lite
from rfn_jax.models.families.googlenet import googlenet
from rfn_jax.models.families.inception import cifar_inception_v3, inception_v3
from rfn_jax.models.families.mlp import mlp
from rfn_jax.models.families.mobilenet_v1 import mobilenet_v1
from rfn_jax.models.families.mobilenet_v2 import mobilenet_v2
from rfn_jax.models.families.mobilenet_v3 import mobilenet_v3
from rfn_jax.models.families.preact_resnet import cifar_wide_resnet, preact_resnet
from rfn_jax.models.families.resnet import cifar_resnet, resnet
from rfn_jax.models.families.squeezenet import squeezenet
from rfn_jax.models.families.swin import swin
from rfn_jax.models.families.vgg import vgg
from rfn_jax.models.families.vit import vit
from rfn_jax.models.zoo import MODELS, from_spec

__all__ = [
    'MODELS', 'Classifier', 'abstract', 'cifar_inception_v3', 'cifar_resnet', 'cifar_wide_resnet', 'convnext',
    'densenet', 'efficientnet', 'efficientnet_lite', 'from_spec', 'full_precision', 'googlenet', 'hooks', 'inception_v3',
    'initialize', 'mlp', 'mobilenet_v1', 'mobilenet_v2', 'mobilenet_v3', 'normalize', 'preact_resnet', 'resnet',
    'squeezenet', 'swin', 'vgg', 'vit',
]  # fmt: skip

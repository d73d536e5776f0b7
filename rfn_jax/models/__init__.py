"""The Flax zoo, and `Classifier`: variables and preprocessing together, from [0, 1] images to logits."""

from rfn_jax.models import (  # fill the table of models
    convnext,
    densenet,
    efficientnet,
    googlenet,
    hooks,
    inception,
    mlp,
    mobilenet_v2,
    mobilenet_v3,
    preact_resnet,
    resnet,
    swin,
    vgg,
    vit,
)
from rfn_jax.models.classifier import Classifier, abstract, full_precision, initialise, normalise
from rfn_jax.models.zoo import MODELS, from_spec

__all__ = [
    'MODELS', 'Classifier', 'abstract', 'convnext', 'densenet', 'efficientnet', 'from_spec', 'full_precision',
    'googlenet', 'hooks', 'inception', 'initialise', 'mlp', 'mobilenet_v2', 'mobilenet_v3', 'normalise',
    'preact_resnet', 'resnet', 'swin', 'vgg', 'vit',
]  # fmt: skip

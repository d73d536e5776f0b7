"""A small form of every kind of model."""

import functools
import inspect

import numpy as np
import pytest

from rfn_jax import models

MOBILE_BLOCKS = ((3, 16, 8, True, 'relu', 2), (5, 24, 8, True, 'hard_swish', 1))
SMALL = {
    'mlp': {'widths': (8, 6)},
    'cifar_resnet': {'depth': 8, 'width': 2},
    'resnet': {'stage_sizes': (1, 1), 'widths': (4, 6)},
    'resnet50': {'stage_sizes': (1, 1), 'widths': (4, 4)},
    'resnext50_32x4d': {'stage_sizes': (1, 1), 'widths': (16, 32), 'groups': 2, 'base_width': 4},
    'preact_resnet': {'stage_sizes': (1, 1), 'widths': (4, 6), 'stem_width': 3},
    'vgg': {'stages': ((4, 4), (6,))},
    'vgg11': {'stages': ((4,), (6,)), 'pool_size': 2, 'hidden_widths': (8, 8)},
    'densenet': {'block_sizes': (1, 2), 'growth_rate': 4, 'initial_features': 6},
    'googlenet': {'width': 1 / 16},
    'cifar_inception_v3': {'width': 1 / 8},
    'vit': {'width': 8, 'depth': 2, 'heads': 2, 'mlp_width': 16},
    'swin': {'patch_size': 2, 'width': 4, 'depths': (2, 1), 'heads': (1, 2), 'window_size': 2, 'mlp_ratio': 2},
    'convnext': {'patch_size': 2, 'depths': (1, 2), 'widths': (4, 6), 'kernel_size': 3},
    'mobilenet_v2': {'stages': ((1, 8, 1, 1), (2, 8, 2, 2)), 'width_multiplier': 0.3},
    'mobilenet_v3_small': {'blocks': MOBILE_BLOCKS, 'hidden_width': 8},
    'efficientnet': {'stages': ((1, 3, 8, 1, 2), (2, 5, 8, 2, 1)), 'width_multiplier': 0.3},
    'efficientnet_lite': {'stages': ((1, 3, 8, 1, 2), (2, 5, 8, 2, 1)), 'width_multiplier': 0.3},
    'mobilenet_v1': {'stages': ((8, 1, 1), (16, 2, 2)), 'width_multiplier': 0.3},
    'squeezenet': {'stages': (((4, 6), (6, 8)),), 'stem_width': 8},
}
KINDS = list(SMALL)


slow = functools.partial(pytest.param, marks=pytest.mark.slow)  # a row of a table


def slow_but(quick, names):
    """Parameters of a test, of which only those that `quick` holds are not slow."""
    return [name if name in quick else slow(name) for name in names]


SEQUENTIAL = [name for name in KINDS if name not in ('googlenet', 'cifar_inception_v3')]  # the others are slow to trace


def shape_of(name):
    return (16, 16, 3) if name == 'googlenet' else (8, 8, 3)


def images(name):
    return np.random.default_rng(0).random((3, *shape_of(name))).astype(np.float32)


def options_of(name):
    """The names of the options of a model."""
    return inspect.signature(models.MODELS[name]).parameters


def small(name, **options):
    return models.MODELS.make(name, num_classes=5, **SMALL[name] | options)


def without_dropout(name, **options):
    rates = {rate: 0.0 for rate in ('dropout', 'auxiliary_dropout', 'stochastic_depth') if rate in options_of(name)}
    return small(name, **rates | options)

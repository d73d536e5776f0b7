"""The models of ImageNet against torchvision's own: names and shapes of tensors, sizes, and logits.

`make_golden.py` makes the file. By default, the tests compare the sizes and logits of one model of each definition, most of
them in slow tests; with RFN_JAX_ALL_GOLDEN=1 in the environment those of all models, which takes a few minutes and 6 GB.
"""

import dataclasses
import functools
import hashlib
import math
import os
import pathlib

import filling
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import slow_but

from rfn_jax import models
from rfn_jax.models import sizes
from rfn_jax.models.weights import conversion, layout

GOLDEN = dict(np.load(pathlib.Path(__file__).with_name('golden.npz')))
NAMES = [name for name in GOLDEN if '/' not in name]
COMPARED = NAMES if 'RFN_JAX_ALL_GOLDEN' in os.environ else [
    'resnet18', 'resnet50', 'resnext50_32x4d', 'densenet121', 'vgg11_bn', 'googlenet', 'inception_v3', 'vit_b_32', 'swin_t',
    'convnext_tiny', 'mobilenet_v2', 'mobilenet_v3_small', 'mobilenet_v3_large', 'efficientnet_b0',
    'squeezenet1_0', 'squeezenet1_1',
]  # fmt: skip
SHALLOW = {'resnet18', 'vgg11_bn', 'vit_b_32', 'convnext_tiny', 'mobilenet_v3_small', 'squeezenet1_1'}
O0 = {'xla_backend_optimization_level': 0}

template = functools.cache(sizes.template)


def tensors(classifier):
    """The shapes of the tensors that a classifier needs, by torchvision's keys."""
    slots = layout.slots(classifier.variables, layout.namings_of(classifier.module)['torchvision'])
    return {slot.key: slot.tensor_shape for slot in slots.values()}


def filled(name):
    """The classifier with the weights of `filling`, and its two images."""
    classifier = template(name)
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), classifier.variables)
    state = {key: filling.tensor(key, shape) for key, shape in tensors(classifier).items()}
    classifier = conversion.from_state_dict(classifier.replace(variables=zeros), state, naming='torchvision').classifier
    return classifier, filling.images(2, sizes.table()[name].image_size)


def relative_error(found, expected):
    return np.abs(np.asarray(found)[..., :50] - expected).max() / np.abs(expected).max()


def test_the_file_holds_every_model_that_claims_to_be_torchvision_s():
    assert sorted(NAMES) == sorted(name for name, size in sizes.table().items() if size.torchvision)
    assert all(name == size.torchvision for name, size in sizes.table().items() if size.torchvision)


@pytest.mark.parametrize('name', slow_but(SHALLOW, NAMES))
def test_tensors_are_torchvision_s(name):
    shapes = tensors(template(name))
    lines = sorted(f'{key} {shape}' for key, shape in shapes.items())
    assert hashlib.sha256('\n'.join(lines).encode()).hexdigest() == str(GOLDEN[f'{name}/keys'])
    trainable = [shape for key, shape in shapes.items() if not key.endswith(('running_mean', 'running_var'))]
    parameters = int(GOLDEN[f'{name}/parameters'])
    assert sizes.table()[name].parameters == sum(map(math.prod, trainable)) == parameters
    # torchvision counts only part of the attention.
    assert sizes.table()[name].gflops == pytest.approx(float(GOLDEN[f'{name}/gflops']), rel=0.01)


@pytest.mark.parametrize('name', slow_but(SHALLOW, COMPARED))
def test_sizes_are_those_in_the_table(name):
    size = sizes.measure(name, template(name))
    assert dataclasses.asdict(size) == pytest.approx(dataclasses.asdict(sizes.table()[name]), abs=1e-6)


@pytest.mark.parametrize('name', slow_but(['resnet18'], COMPARED))
def test_logits_are_torchvision_s(name):
    classifier, images = filled(name)
    logits = jax.jit(lambda c, x: c(x), compiler_options=O0)(classifier, images)
    assert logits.shape == (2, 1000)
    assert relative_error(logits, GOLDEN[name]) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('name', ['googlenet', 'inception_v3'])
def test_auxiliary_logits_are_torchvision_s(name):
    classifier, images = filled(name)
    module = models.MODELS.make(name, num_classes=1000)

    def calmly(call, args, kwargs, context):
        norm = context.module
        if isinstance(norm, nn.Dropout):
            return args[0]
        if not (isinstance(norm, nn.BatchNorm) and context.method_name == '__call__'):
            return call(*args, **kwargs)
        stats, params = norm.variables['batch_stats'], norm.variables['params']
        scaled = params['scale'] / jnp.sqrt(stats['var'] + norm.epsilon)
        return (args[0] - stats['mean']) * scaled + params['bias']

    def heads(variables, images):
        with nn.intercept_methods(calmly):
            return module.apply(variables, images, train=True, mutable=['auxiliary_logits'])[1]['auxiliary_logits']

    found = flax.traverse_util.flatten_dict(jax.jit(heads, compiler_options=O0)(classifier.variables, images))
    logits = np.stack([found[path][0] for path in sorted(found)])
    expected = GOLDEN[f'{name}/auxiliary']
    assert logits.shape == (*expected.shape[:2], 1000)
    assert relative_error(logits, expected) < 1e-4

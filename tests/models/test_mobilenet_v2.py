import flax.linen as nn
import jax
import pytest
from shapes import calls, count, draws, normed, places, rows

from rfn_jax import models
from rfn_jax.core import errors


def small(**options):
    return models.MODELS.make(
        'mobilenet_v2', num_classes=5, width_multiplier=0.3, stages=((1, 8, 1, 1), (2, 12, 2, 2)), **options
    )


@pytest.mark.parametrize(
    ('name', 'options', 'size', 'expected'),
    [
        ('mobilenet_v2', {}, 224, [112] * 2 + [56] * 2 + [28] * 3 + [14] * 7 + [7] * 5),
        ('mobilenet_v2', {}, 33, [17] * 2 + [9] * 2 + [5] * 3 + [3] * 7 + [2] * 5),
        ('mobilenet_v2', {}, 1, [1] * 19),
        ('mobilenet_v2', {'stem_strides': 1}, 32, [32] * 2 + [16] * 2 + [8] * 3 + [4] * 7 + [2] * 5),
        ('cifar_mobilenet_v2', {}, 32, [32] * 4 + [16] * 3 + [8] * 7 + [4] * 5),
    ],
)
def test_strides(name, options, size, expected):
    found = rows(models.MODELS.make(name, num_classes=10, **options), size)
    assert found == {f'features_{number}': row for number, row in enumerate(expected)}


# torchvision's MobileNetV2(width_mult=...)
@pytest.mark.parametrize(
    ('width_multiplier', 'expected'), [(0.35, 1_677_128), (0.5, 1_968_680), (1.0, 3_504_872), (1.4, 6_108_776)]
)
def test_the_number_of_parameters(width_multiplier, expected):
    module = models.MODELS.make('mobilenet_v2', num_classes=1000, width_multiplier=width_multiplier)
    assert count(module) == expected


@pytest.mark.parametrize(
    ('naming', 'expected'),
    [
        (
            'torchvision',
            {
                **normed(
                    {
                        'features_0': 'features.0',
                        'features_1/depthwise_0': 'features.1.conv.0',
                        'features_2/expand_0': 'features.2.conv.0',
                        'features_2/depthwise_1': 'features.2.conv.1',
                        'features_3/expand_0': 'features.3.conv.0',
                        'features_3/depthwise_1': 'features.3.conv.1',
                        'features_4': 'features.4',
                    }
                ),
                'features_1/project_1/conv': 'features.1.conv.1',
                'features_1/project_1/bn': 'features.1.conv.2',
                'features_2/project_2/conv': 'features.2.conv.2',
                'features_2/project_2/bn': 'features.2.conv.3',
                'features_3/project_2/conv': 'features.3.conv.2',
                'features_3/project_2/bn': 'features.3.conv.3',
                'classifier': 'classifier.1',
            },
        ),
        (
            'timm',
            {
                'features_0/conv': 'conv_stem',
                'features_0/bn': 'bn1',
                'features_1/depthwise_0/conv': 'blocks.0.0.conv_dw',
                'features_1/depthwise_0/bn': 'blocks.0.0.bn1',
                'features_1/project_1/conv': 'blocks.0.0.conv_pw',
                'features_1/project_1/bn': 'blocks.0.0.bn2',
                'features_2/expand_0/conv': 'blocks.1.0.conv_pw',
                'features_2/expand_0/bn': 'blocks.1.0.bn1',
                'features_2/depthwise_1/conv': 'blocks.1.0.conv_dw',
                'features_2/depthwise_1/bn': 'blocks.1.0.bn2',
                'features_2/project_2/conv': 'blocks.1.0.conv_pwl',
                'features_2/project_2/bn': 'blocks.1.0.bn3',
                'features_3/expand_0/conv': 'blocks.1.1.conv_pw',
                'features_3/expand_0/bn': 'blocks.1.1.bn1',
                'features_3/depthwise_1/conv': 'blocks.1.1.conv_dw',
                'features_3/depthwise_1/bn': 'blocks.1.1.bn2',
                'features_3/project_2/conv': 'blocks.1.1.conv_pwl',
                'features_3/project_2/bn': 'blocks.1.1.bn3',
                'features_4/conv': 'conv_head',
                'features_4/bn': 'bn2',
                'classifier': 'classifier',
            },
        ),
    ],
)
def test_keys_of_state_dicts(naming, expected):
    assert places(small(), naming) == expected


def test_dropout_is_in_training_only_and_before_the_dense_layer():
    dropout, features = calls(small(), nn.Dropout)['dropout']
    assert (dropout.rate, features.shape) == (0.2, (1, 1280))
    assert draws(small(dropout=0.1), train=True)
    assert not draws(small(dropout=0.0), train=True)
    assert not draws(small(dropout=0.1), train=False)


def test_the_dense_layer_starts_with_small_weights():
    dense, _ = calls(small(), nn.Dense)['classifier']
    assert float(dense.kernel_init(jax.random.key(0), (200, 50)).std()) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'stages': ()}, r'stages must have at least one row of expansion, channels, blocks, stride, got \(\)'),
        ({'stages': ((1, 16, 1),)}, r'got \(\(1, 16, 1\),\)'),
        ({'stages': ((1, 16, 1, 1), (6, 0, 1, 2))}, r'channels of stages\[1\] must be an integer of at least 1, got 0'),
        ({'width_multiplier': 0.0}, 'width_multiplier must be a finite number above 0, got 0.0'),
        ({'stem_strides': 0}, 'stem_strides must be an integer of at least 1, got 0'),
        ({'dropout': 1.0}, r'dropout must be a finite number at least 0 and below 1, got 1.0'),
    ],
)
@pytest.mark.parametrize('name', ['mobilenet_v2', 'cifar_mobilenet_v2'])
def test_bad_options(name, options, message):
    with pytest.raises(errors.InputError, match=message):
        models.MODELS.make(name, num_classes=10, **options)

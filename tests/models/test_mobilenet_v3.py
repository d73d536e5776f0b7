import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from shapes import calls, count, draws, normed, places, rows

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import hooks
from rfn_jax.models.families import mobilenet_v3

BLOCKS = ((3, 16, 8, True, 'relu', 2), (5, 24, 8, True, 'hard_swish', 1), (3, 24, 16, False, 'relu', 1))


def small(**options):
    return mobilenet_v3.mobilenet_v3(5, blocks=BLOCKS, hidden_width=8, **options)


@pytest.mark.parametrize(
    ('name', 'options', 'size', 'expected'),
    [
        ('mobilenet_v3_small', {}, 224, [112, 56, 28, 28] + [14] * 5 + [7] * 4),
        ('mobilenet_v3_large', {}, 224, [112] * 2 + [56] * 2 + [28] * 3 + [14] * 6 + [7] * 4),
        ('mobilenet_v3_large', {}, 33, [17] * 2 + [9] * 2 + [5] * 3 + [3] * 6 + [2] * 4),
        ('mobilenet_v3_small', {'stem_strides': 1}, 32, [32, 16, 8, 8] + [4] * 5 + [2] * 4),
        ('mobilenet_v3_small', {}, 1, [1] * 13),
        ('cifar_mobilenet_v3_small', {}, 32, [32] * 2 + [16] * 2 + [8] * 5 + [4] * 4),
        ('cifar_mobilenet_v3_large', {}, 32, [32] * 4 + [16] * 3 + [8] * 6 + [4] * 4),
    ],
)
def test_strides(name, options, size, expected):
    found = rows(models.MODELS.make(name, num_classes=10, **options), size)
    assert found == {f'features_{number}': row for number, row in enumerate(expected)}


# torchvision's MobileNetV3(*_mobilenet_v3_conf(..., width_mult=...))
@pytest.mark.parametrize(
    ('name', 'width_multiplier', 'expected'),
    [
        ('mobilenet_v3_small', 0.5, 917_264),
        ('mobilenet_v3_small', 1.0, 2_542_856),
        ('mobilenet_v3_large', 0.75, 3_377_576),
        ('mobilenet_v3_large', 1.0, 5_483_032),
    ],
)
def test_the_number_of_parameters(name, width_multiplier, expected):
    assert count(models.MODELS.make(name, num_classes=1000, width_multiplier=width_multiplier)) == expected


def test_keys_of_state_dicts():
    assert places(small(), 'torchvision') == {
        **normed(
            {
                'features_0': 'features.0',
                'features_1/depthwise_0': 'features.1.block.0',
                'features_1/project_2': 'features.1.block.2',
                'features_2/expand_0': 'features.2.block.0',
                'features_2/depthwise_1': 'features.2.block.1',
                'features_2/project_3': 'features.2.block.3',
                'features_3/expand_0': 'features.3.block.0',
                'features_3/depthwise_1': 'features.3.block.1',
                'features_3/project_2': 'features.3.block.2',
                'features_4': 'features.4',
            }
        ),
        'features_1/squeeze_excite_1/fc1': 'features.1.block.1.fc1',
        'features_1/squeeze_excite_1/fc2': 'features.1.block.1.fc2',
        'features_2/squeeze_excite_2/fc1': 'features.2.block.2.fc1',
        'features_2/squeeze_excite_2/fc2': 'features.2.block.2.fc2',
        'classifier_0': 'classifier.0',
        'classifier_3': 'classifier.3',
    }


def test_activations_and_none_inside_of_gates():
    assert {path: type(module) for path, (module, _) in calls(small(), hooks.Activation).items()} == {
        'features_0/activation': hooks.HardSwish,
        'features_1/depthwise_0/activation': hooks.Relu,
        'features_2/expand_0/activation': hooks.HardSwish,
        'features_2/depthwise_1/activation': hooks.HardSwish,
        'features_3/expand_0/activation': hooks.Relu,
        'features_3/depthwise_1/activation': hooks.Relu,
        'features_4/activation': hooks.HardSwish,
        'hard_swish': hooks.HardSwish,
    }


def test_normalizations():
    found = {(bn.momentum, bn.epsilon) for bn, _ in calls(small(), nn.BatchNorm).values()}
    assert found == {(0.99, 1e-3)}  # torch's momentum is 0.01


def test_dropout_is_in_training_only_and_before_the_last_dense_layer():
    assert list(calls(small(), (nn.Dense, nn.Dropout))) == ['classifier_0', 'dropout', 'classifier_3']
    assert calls(small(), nn.Dropout)['dropout'][0].rate == 0.2
    assert draws(small(dropout=0.1), train=True)
    assert not draws(small(dropout=0.0), train=True)
    assert not draws(small(dropout=0.1), train=False)


def test_the_hidden_layer_is_computed_in_the_type_of_the_model_and_the_last_one_in_float32():
    found = calls(small(dtype=jnp.bfloat16), nn.Dense)
    assert {path: x.dtype.name for path, (_, x) in found.items()} == {
        'classifier_0': 'bfloat16',
        'classifier_3': 'float32',
    }


@pytest.mark.parametrize('name', ['classifier_0', 'classifier_3'])
def test_dense_layers_start_with_small_weights(name):
    dense, _ = calls(small(), nn.Dense)[name]
    assert float(dense.kernel_init(jax.random.key(0), (200, 50)).std()) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'blocks': ()}, r'a MobileNetV3 needs at least one block, got \(\)'),
        ({'blocks': ((3, 16, 8, True, 2),)}, r'needs kernel, .*, strides, got \(3, 16, 8, True, 2\)'),
        ({'blocks': ((4, 16, 8, True, 'relu', 2),)}, 'kernel must be odd, got 4'),
        ({'blocks': ((3, 16, 0, True, 'relu', 2),)}, 'features must be an integer of at least 1, got 0'),
        ({'blocks': ((3, '16', 8, True, 'relu', 2),)}, "expanded must be an integer of at least 1, got '16'"),
        ({'blocks': ((3, 16, 8, True, 'relu6', 2),)}, "unknown activation 'relu6'; did you mean 'relu'"),
        ({'width_multiplier': -1.0}, 'width_multiplier must be a finite number above 0, got -1.0'),
        ({'hidden_width': 0}, 'hidden_width must be an integer of at least 1, got 0'),
        ({'stem_strides': 0}, 'stem_strides must be an integer of at least 1, got 0'),
        ({'dropout': 1.0}, r'dropout must be a finite number at least 0 and below 1, got 1.0'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(errors.InputError, match=message):
        models.MODELS.make('mobilenet_v3_small', num_classes=10, **options)

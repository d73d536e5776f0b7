"""What `test_golden.py`, which compares keys, sizes and logits with torchvision's, leaves open."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shapes import calls, count, draws, places, rows

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import hooks


def small(**options):
    options = {'stages': (((2, 3),), ((2, 4), (3, 5))), 'stem_width': 4, **options}
    return models.MODELS.make('squeezenet', num_classes=6, **options)


# torchvision's
@pytest.mark.parametrize(('name', 'expected'), [('squeezenet1_0', 1_248_424), ('squeezenet1_1', 1_235_496)])
def test_the_number_of_parameters(name, expected):
    assert count(models.MODELS.make(name, num_classes=1000), 32) == expected


@pytest.mark.parametrize(
    ('name', 'size', 'expected'),
    [
        ('squeezenet1_0', 224, [109] * 2 + [54] * 3 + [27] * 4 + [13]),
        ('squeezenet1_1', 224, [111] * 2 + [55] * 2 + [27] * 2 + [13] * 4),
        ('squeezenet1_1', 17, [8] * 2 + [4] * 2 + [2] * 2 + [1] * 4),
        ('cifar_squeezenet1_1', 32, [30] * 2 + [15] * 2 + [7] * 2 + [3] * 4),
    ],
)
def test_windows_that_are_not_full_count_in_pooling(name, size, expected):
    found = rows(models.MODELS.make(name, num_classes=10), size)
    assert [row for layer, row in found.items() if layer.startswith('features')] == expected


# The smallest images are those of torchvision.
@pytest.mark.parametrize(('name', 'size'), [('squeezenet1_0', 21), ('squeezenet1_1', 17), ('cifar_squeezenet1_1', 10)])
def test_an_image_that_is_too_small_is_refused(name, size):
    module = models.MODELS.make(name, num_classes=10)
    models.abstract(module, (size, 32, 3), num_classes=10)
    with pytest.raises(errors.InputError, match=f'{size - 1} x 32 pixels is too small for this SqueezeNet'):
        models.abstract(module, (size - 1, 32, 3), num_classes=10)


def test_keys_of_state_dicts():
    fires = (('3', '3'), ('5', '5'), ('6', '6'))  # position 4 is that of the pooling
    parts = ('squeeze', 'expand1x1', 'expand3x3')
    assert places(small(), 'torchvision', 16) == {
        'features_0': 'features.0',
        **{f'features_{number}/{part}': f'features.{key}.{part}' for number, key in fires for part in parts},
        'classifier_1': 'classifier.1',
    }


def test_dropout_comes_before_the_last_convolution_and_is_in_training_only():
    dropout, features = calls(small(), nn.Dropout, 18)['classifier_0']
    assert (dropout.rate, features.shape) == (0.5, (1, 2, 2, 10))
    assert draws(small(), train=True, size=16)
    assert not draws(small(), train=False, size=16)
    assert not draws(small(dropout=0.0), train=True, size=16)


def test_the_last_convolution_is_computed_in_float32_and_followed_by_a_relu():
    found = calls(small(dtype=jnp.bfloat16), (nn.Conv, hooks.Activation), 18)
    assert {name: x.dtype.name for name, (_, x) in found.items() if name in ('features_0', 'classifier_1')} == {
        'features_0': 'float32',
        'classifier_1': 'float32',
    }
    assert found['features_3/squeeze'][1].dtype == jnp.bfloat16
    assert found['classifier_2'][1].shape == (1, 2, 2, 6)
    assert list(found)[-2:] == ['classifier_1', 'classifier_2']


def test_kernels_start_as_in_torchvision():
    found = calls(small(), nn.Conv, 16)
    kernel = found['features_3/squeeze'][0].kernel_init(jax.random.key(0), (1, 1, 300, 200))
    bound = np.sqrt(6 / 300)  # kaiming_uniform_
    assert 0.99 * bound < float(jnp.abs(kernel).max()) <= bound
    last = found['classifier_1'][0].kernel_init(jax.random.key(0), (1, 1, 300, 200))
    assert float(last.std()) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'stages': ()}, r'stages of a SqueezeNet must have at least one stage, got \(\)'),
        ({'stages': ((),)}, r'stages\[0\] must have at least one row of squeeze, expand, got \(\)'),
        ({'stages': (((2, 0),),)}, r'expand of stages\[0\]\[0\] must be an integer of at least 1, got 0'),
        ({'stem_width': 0}, 'stem_width must be an integer of at least 1, got 0'),
        ({'stem_kernel': 0}, 'stem_kernel must be an integer of at least 1, got 0'),
        ({'stem_strides': 0}, 'stem_strides must be an integer of at least 1, got 0'),
        ({'dropout': 1.0}, r'dropout must be a finite number at least 0 and below 1, got 1.0'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(errors.InputError, match=message):
        small(**options)

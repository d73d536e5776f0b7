import inspect
import re

import numpy as np
import pytest
from small_models import KINDS, SMALL, slow

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import ranges


@pytest.mark.parametrize(
    ('check', 'given', 'checked'),
    [
        (ranges.check_sizes, {'a': 1, 'b': np.int64(3)}, {'a': 1, 'b': 3}),
        (ranges.check_positive, {'a': 1, 'b': 0.5}, {'a': 1.0, 'b': 0.5}),
        (ranges.check_rates, {'a': 0, 'b': np.float64(0.99)}, {'a': 0.0, 'b': 0.99}),
        (ranges.check_loss_weights, {'a': 0, 'b': 3.5}, {'a': 0.0, 'b': 3.5}),
        (ranges.check_odd, {'a': 1, 'b': np.int64(7)}, {'a': 1, 'b': 7}),
        (ranges.check_widths, {'a': (), 'b': [np.int64(3), 4]}, {'a': (), 'b': (3, 4)}),
        (ranges.check_stages, {'a': (2, 1), 'b': [3, np.int64(4)]}, {'a': (2, 1), 'b': (3, 4)}),
    ],
)
def test_valid_options_are_returned_as_plain_numbers(check, given, checked):
    assert repr(check(**given)) == repr(checked)


def test_the_rows_of_a_table_are_plain_integers():
    rows = [[1, np.int64(2)], (3, 5)]
    assert repr(ranges.check_table('rows', rows, ('kernel', 'blocks'))) == '((1, 2), (3, 5))'


SIZE = 'must be an integer of at least 1'
POSITIVE = 'must be a finite number above 0'
RATE = 'must be a finite number at least 0 and below 1'
WEIGHT = 'must be a finite number at least 0'
ODD = 'must be odd'
STAGES = 'need the same number of stages, at least one'
NAN, INF = float('nan'), float('inf')


def table(rows):
    return ranges.check_table('rows', rows, ('kernel', 'blocks'))


@pytest.mark.parametrize(
    ('check', 'value', 'message'),
    [
        *((ranges.check_sizes, value, f'b {SIZE}, got {value}') for value in (0, 2.0)),
        *((ranges.check_positive, value, f'b {POSITIVE}, got {value}') for value in (0, -1, NAN, INF)),
        *((ranges.check_rates, value, f'b {RATE}, got {value}') for value in (-0.1, 1, NAN)),
        *((ranges.check_loss_weights, value, f'b {WEIGHT}, got {value}') for value in (-0.1, INF)),
        *((ranges.check_odd, value, f'b {SIZE}, got {value}') for value in (0, -1)),
        (ranges.check_odd, 4, f'b {ODD}, got 4'),
        *((ranges.check_widths, (3, value), f'b[1] {SIZE}, got {value}') for value in (0, 2.0)),
        (lambda b: ranges.check_stages(a=[2, 2], b=b), (3,), f'a (2, 2) and b (3,) {STAGES}'),
        (lambda b: ranges.check_stages(a=(), b=b), (3,), f'a () and b (3,) {STAGES}'),
        (lambda b: ranges.check_stages(a=(), b=b), (), f'a () and b () {STAGES}'),
        (lambda b: ranges.check_stages(a=(2, 1), b=b), (3, 0), f'b[1] {SIZE}, got 0'),
        (lambda b: ranges.check_stages(a=(-2, 1), b=b), (3, 4), f'a[0] {SIZE}, got -2'),
        (lambda b: table(b), (), 'rows must have at least one row of kernel, blocks, got ()'),
        (lambda b: table(b), ((1, 2), (3,)), 'rows must have at least one row of kernel, blocks, got ((1, 2), (3,))'),
        (lambda b: table(b), ((1, 2), (4, 2)), f'kernel of rows[1] {ODD}, got 4'),
        (lambda b: table(b), ((1, 0),), f'blocks of rows[0] {SIZE}, got 0'),
    ],
)
def test_options_out_of_range(check, value, message):
    with pytest.raises(errors.InputError, match=f'^{re.escape(message)}$'):
        check(b=value)


# Each of these values alone is refused, as `<option> <rule>, got <value>`; 4 is an even number where an odd one is needed.
RULES = {
    **dict.fromkeys(('depth_multiplier', 'width', 'width_multiplier'), POSITIVE),
    **dict.fromkeys(('auxiliary_dropout', 'dropout', 'stochastic_depth'), RATE),
    **dict.fromkeys(('bottleneck', 'depth', 'growth_rate', 'heads', 'hidden_width', 'initial_features'), SIZE),
    **dict.fromkeys(('kernel_size', 'mlp_ratio', 'mlp_width', 'patch_size', 'pool_size', 'stem_kernel'), SIZE),
    **dict.fromkeys(('stem_strides', 'stem_width', 'widen_factor', 'window_size'), SIZE),
    **dict.fromkeys(('auxiliary_weight',), WEIGHT),
}
STEM = {'stem_strides': 0, 'dropout': 1.0}
OUT_OF_RANGE = {
    'cifar_inception_v3': {'width': -1.0, 'dropout': 1.5},
    'convnext': {'patch_size': 0, 'kernel_size': (-1, 4), 'stochastic_depth': 1.0},
    'densenet': {'growth_rate': 0, 'initial_features': 0, 'bottleneck': -1, **STEM, 'stem_kernel': (-1, 4)},
    'efficientnet': {'width_multiplier': 0, 'depth_multiplier': -1, 'stochastic_depth': -0.1, **STEM},
    'efficientnet_lite': {'width_multiplier': 0, 'depth_multiplier': -1, 'stochastic_depth': -0.1, **STEM},
    'googlenet': {'width': 0.0, 'auxiliary_weight': -0.1, 'dropout': 1.0, 'auxiliary_dropout': -0.5},
    'inception_v3': {'width': -1.0, 'auxiliary_weight': -1, 'dropout': 1.5},
    'mobilenet_v1': {'width_multiplier': 0.0, **STEM},
    'mobilenet_v2': {'width_multiplier': 0.0, **STEM},
    'mobilenet_v3_small': {'width_multiplier': -1.0, 'hidden_width': 0, **STEM},
    'preact_resnet': {'stem_width': 0, 'dropout': 1.0},
    'resnet': {'stem_strides': 0, 'stem_kernel': 4},
    'cifar_wide_resnet': {'widen_factor': 0},
    'squeezenet': {'stem_width': 0, 'stem_kernel': 0, **STEM},
    'swin': {'patch_size': 0, 'window_size': -7, 'mlp_ratio': 0, 'dropout': 1.0, 'stochastic_depth': -0.2},
    'vgg11': {'pool_size': 0, 'dropout': 1.0},
    'vit': {'heads': 0, 'patch_size': 0, 'depth': -1, 'mlp_width': 0, 'dropout': -0.1},
}  # fmt: skip
ROW = 'stages must have at least one row of expansion'
OTHERS = [
    ('cifar_resnet', {'width': 0}, f'widths[0] {SIZE}, got 0'),
    *(('cifar_resnet', {'depth': d}, f'8, 14, 20, 26, 32, ...), got {d}') for d in (0, 2, 7, 18, 21, -4)),
    ('cifar_resnet', {'depth': 7}, 'depth of a CIFAR ResNet must be 6n + 2 (8, '),
    ('cifar_wide_resnet', {'depth': 20}, 'depth of a wide ResNet must be 6n + 4 (10, 16, 22, 28, 34, ...), got 20'),
    ('convnext', {'depths': (3, 3)}, f'depths (3, 3) and widths (96, 192, 384, 768) {STAGES}'),
    ('densenet', {'block_sizes': ()}, f'block_sizes () {STAGES}'),
    ('efficientnet_b0', {'stages': ((1, 3, 16, 1),)}, f'{ROW}, kernel, channels, blocks, stride, got ((1, 3, 16, 1),)'),
    ('efficientnet', {'stages': ((1, 4, 16, 1, 1),)}, f'kernel of stages[0] {ODD}, got 4'),
    ('efficientnet_lite', {'stages': ()}, f'{ROW}, kernel, channels, blocks, stride, got ()'),
    ('efficientnet_lite', {'stages': ((1, 4, 16, 1, 1),)}, f'kernel of stages[0] {ODD}, got 4'),
    ('mlp', {'widths': (8, 0)}, f'widths[1] {SIZE}, got 0'),
    ('mobilenet_v1', {'stages': ()}, 'stages must have at least one row of channels, blocks, stride, got ()'),
    ('mobilenet_v1', {'stages': ((0, 1, 1),)}, f'channels of stages[0] {SIZE}, got 0'),
    ('mobilenet_v1', {'activation': 'gelu'}, "unknown activation 'gelu'"),
    ('mobilenet_v2', {'stages': ((1, 16, 1),)}, f'{ROW}, channels, blocks, stride, got ((1, 16, 1),)'),
    ('cifar_mobilenet_v2', {'stages': ((1, 16, 1, 1), (6, 0, 1, 2))}, f'channels of stages[1] {SIZE}, got 0'),
    ('mobilenet_v3_small', {'blocks': ()}, 'a MobileNetV3 needs at least one block, got ()'),
    ('mobilenet_v3_small', {'blocks': ((3, 16, 8, True, 2),)}, 'strides, got (3, 16, 8, True, 2)'),
    ('mobilenet_v3_small', {'blocks': ((4, 16, 8, True, 'relu', 2),)}, f'kernel {ODD}, got 4'),
    ('mobilenet_v3_small', {'blocks': ((3, 16, 0, True, 'relu', 2),)}, f'features {SIZE}, got 0'),
    ('mobilenet_v3_small', {'blocks': ((3, '16', 8, True, 'relu', 2),)}, f"expanded {SIZE}, got '16'"),
    ('mobilenet_v3_small', {'blocks': ((3, 16, 8, True, 'relu6', 2),)}, "unknown activation 'relu6'; did you mean 'relu'"),
    ('preact_resnet', {'block': 'basik'}, "unknown residual block 'basik'; did you mean 'basic'"),
    ('preact_resnet', {'widths': (4,)}, f'stage_sizes (2, 2, 2, 2) and widths (4,) {STAGES}'),
    ('resnet', {'block': 'bottlneck'}, "unknown residual block 'bottlneck'; did you mean 'bottleneck'?"),
    ('resnet', {'shortcut': 'projektion'}, "unknown shortcut 'projektion'; did you mean 'projection'?"),
    ('resnet', {'stage_sizes': (1, 1)}, f'stage_sizes (1, 1) and widths (64, 128, 256, 512) {STAGES}'),
    ('resnet', {'groups': 2}, "groups 2 and base_width 64 need block 'bottleneck'; with 'basic' they must be 1 and 64"),
    ('resnet', {'block': 'bottleneck', 'base_width': 3, 'widths': (8, 8, 8, 64)}, 'times base_width 3 must be mul'),
    ('squeezenet', {'stages': ()}, 'stages of a SqueezeNet must have at least one stage, got ()'),
    ('squeezenet', {'stages': ((),)}, 'stages[0] must have at least one row of squeeze, expand, got ()'),
    ('squeezenet', {'stages': (((2, 0),),)}, f'expand of stages[0][0] {SIZE}, got 0'),
    ('swin', {'width': 0}, f'width {SIZE}, got 0'),
    ('swin', {'depths': (2, 2)}, f'depths (2, 2) and heads (3, 6, 12, 24) {STAGES}'),
    ('swin', {'heads': (3, 6, 12, 25)}, 'heads (3, 6, 12, 25) must divide the channels of their stages, 96 and'),
    ('vgg', {'stages': ()}, 'a VGG needs at least one stage, and each stage at least one width, got ()'),
    ('vgg', {'stages': ((4,), ())}, 'each stage at least one width, got ((4,), ())'),
    ('vgg', {'stages': ((4,), (-1,))}, f'stages[1][0] {SIZE}, got -1'),
    ('vgg', {'stages': ((4,),), 'dropout': 0.5}, 'hidden layers, and without hidden_widths there are none'),
    ('vgg11', {'hidden_widths': (8, 0)}, f'hidden_widths[1] {SIZE}, got 0'),
    ('vit', {'heads': 5}, 'heads 5 must divide the width 192 of a ViT'),
    ('vit', {'pool': 'tokens'}, "unknown pool 'tokens'; did you mean 'token'"),
    ('restnet18', {}, "unknown model 'restnet18'; did you mean 'resnet18'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        *(
            (name, {option: value}, f'{option} {ODD if value == 4 else RULES[option]}, got {value}')
            for name, options in OUT_OF_RANGE.items()
            for option, values in options.items()
            for value in (values if isinstance(values, tuple) else (values,))
        ),
        *OTHERS,
    ],
)
def test_an_option_out_of_range_is_refused_by_its_model(name, options, message):
    with pytest.raises(errors.InputError, match=re.escape(message)):
        models.MODELS.make(name, num_classes=5, **options)


@pytest.mark.parametrize('name', KINDS)
def test_an_unknown_option_is_named_with_the_nearest(name):
    option = next(iter(SMALL[name]))
    wrong = option[:-1] + 'x'
    message = f"unknown option of model '{name}': '{wrong}'; did you mean .*'{option}'"
    with pytest.raises(errors.InputError, match=message):
        models.MODELS.make(name, num_classes=10, **{wrong: 1})
    assert option in inspect.signature(models.MODELS[name]).parameters


def test_the_number_of_classes_is_needed():
    with pytest.raises(errors.InputError, match=r"^model 'resnet18' needs num_classes$"):
        models.MODELS.make('resnet18')


NARROW_DENSENET = {'block_sizes': (1, 1, 1, 1), 'growth_rate': 2}
NARROW_STEM = {'stem_kernel': 3, 'stem_strides': 1, 'stem_pool': False}


@pytest.mark.parametrize(
    ('name', 'options', 'least', 'network'),
    [
        ('convnext', {'depths': (1, 1), 'widths': (4, 6)}, 8, 'ConvNeXt'),
        ('densenet', NARROW_DENSENET, 29, 'DenseNet'),
        ('densenet', NARROW_DENSENET | NARROW_STEM, 8, 'DenseNet'),
        ('densenet', NARROW_DENSENET | {'stem_pool': False}, 15, 'DenseNet'),
        ('densenet', NARROW_DENSENET | {'stem_strides': 4}, 57, 'DenseNet'),
        ('densenet', NARROW_DENSENET | {'block_sizes': (1,)}, 1, 'DenseNet'),
        ('googlenet', {'width': 1 / 32}, 15, 'GoogLeNet'),
        ('cifar_googlenet', {'width': 1 / 32}, 1, 'GoogLeNet'),
        slow('inception_v3', {'width': 1 / 64}, 75, 'Inception v3'),
        ('cifar_inception_v3', {'width': 1 / 64}, 7, 'Inception v3'),
        # torchvision's smallest
        *((name, {}, size, 'SqueezeNet') for name, size in (('squeezenet1_0', 21), ('squeezenet1_1', 17))),
        ('cifar_squeezenet1_1', {}, 10, 'SqueezeNet'),
        ('swin', {'depths': (1,), 'heads': (1,), 'width': 4}, 4, 'Swin transformer'),
        *((name, {}, 32, 'VGG') for name in ('cifar_vgg13', 'vgg13', 'vgg13_bn')),
    ],
)
def test_the_smallest_image(name, options, least, network):
    module = models.MODELS.make(name, num_classes=5, **options)
    models.abstract(module, (least, least, 3), num_classes=5)
    for height, width in ((least - 1, 300), (300, least - 1)) if least > 1 else ():
        message = (
            f'an image of {height} x {width} pixels is too small for this {network}, which needs at least {least} rows'
        )
        with pytest.raises(errors.InputError, match=f'^{message} and columns'):
            models.abstract(module, (height, width, 3), num_classes=5)


@pytest.mark.parametrize('shape', [(9, 8, 3), (8, 10, 3), (2, 2, 3)])
def test_a_patch_size_that_does_not_divide_the_image(shape):
    module = models.MODELS.make('vit', num_classes=5)
    with pytest.raises(errors.InputError, match=rf'patch_size 4 does not divide an image of {shape[0]} x {shape[1]}'):
        models.abstract(module, shape, num_classes=5)

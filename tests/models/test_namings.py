"""Keys of published files, beyond those of torchvision, which `test_golden` compares with torchvision itself."""

import pytest
from shapes import places, shapes_of
from small_models import small

from rfn_jax import models
from rfn_jax.models.families import vgg
from rfn_jax.models.weights import layout

MOBILENET_V2 = {'width_multiplier': 0.3, 'stages': ((1, 8, 1, 1), (2, 12, 2, 2))}
EFFICIENTNET = {'width_multiplier': 0.3, 'stages': ((1, 3, 8, 1, 2), (2, 5, 12, 1, 1))}
# The convolution and the normalization of each step.
STEPS = {
    ('mobilenet_v2', 'timm'): {
        'features_0': 'conv_stem bn1',
        'features_1/depthwise_0': 'blocks.0.0.conv_dw blocks.0.0.bn1',
        'features_1/project_1': 'blocks.0.0.conv_pw blocks.0.0.bn2',
        'features_2/expand_0': 'blocks.1.0.conv_pw blocks.1.0.bn1',
        'features_2/depthwise_1': 'blocks.1.0.conv_dw blocks.1.0.bn2',
        'features_2/project_2': 'blocks.1.0.conv_pwl blocks.1.0.bn3',
        'features_3/expand_0': 'blocks.1.1.conv_pw blocks.1.1.bn1',
        'features_3/depthwise_1': 'blocks.1.1.conv_dw blocks.1.1.bn2',
        'features_3/project_2': 'blocks.1.1.conv_pwl blocks.1.1.bn3',
        'features_4': 'conv_head bn2',
    },
    ('efficientnet', 'timm'): {
        'features_0': 'conv_stem bn1',
        'features_1_0/depthwise_0': 'blocks.0.0.conv_dw blocks.0.0.bn1',
        'features_1_0/project_2': 'blocks.0.0.conv_pw blocks.0.0.bn2',
        'features_2_0/expand_0': 'blocks.1.0.conv_pw blocks.1.0.bn1',
        'features_2_0/depthwise_1': 'blocks.1.0.conv_dw blocks.1.0.bn2',
        'features_2_0/project_3': 'blocks.1.0.conv_pwl blocks.1.0.bn3',
        'features_3': 'conv_head bn2',
    },
    ('efficientnet_lite', 'timm'): {
        'features_0': 'conv_stem bn1',
        'features_1_0/depthwise_0': 'blocks.0.0.conv_dw blocks.0.0.bn1',
        'features_1_0/project_1': 'blocks.0.0.conv_pw blocks.0.0.bn2',
        'features_2_0/expand_0': 'blocks.1.0.conv_pw blocks.1.0.bn1',
        'features_2_0/depthwise_1': 'blocks.1.0.conv_dw blocks.1.0.bn2',
        'features_2_0/project_2': 'blocks.1.0.conv_pwl blocks.1.0.bn3',
        'features_3': 'conv_head bn2',
    },
    ('efficientnet_lite', 'efficientnet_pytorch'): {
        'features_0': '_conv_stem _bn0',
        'features_1_0/depthwise_0': '_blocks.0._depthwise_conv _blocks.0._bn1',
        'features_1_0/project_1': '_blocks.0._project_conv _blocks.0._bn2',
        'features_2_0/expand_0': '_blocks.1._expand_conv _blocks.1._bn0',
        'features_2_0/depthwise_1': '_blocks.1._depthwise_conv _blocks.1._bn1',
        'features_2_0/project_2': '_blocks.1._project_conv _blocks.1._bn2',
        'features_3': '_conv_head _bn1',
    },
    ('mobilenet_v1', 'timm'): {
        'features_0': 'conv_stem bn1',
        'features_1/depthwise': 'blocks.0.0.conv_dw blocks.0.0.bn1',
        'features_1/pointwise': 'blocks.0.0.conv_pw blocks.0.0.bn2',
        'features_2/depthwise': 'blocks.1.0.conv_dw blocks.1.0.bn1',
        'features_2/pointwise': 'blocks.1.0.conv_pw blocks.1.0.bn2',
        'features_3/depthwise': 'blocks.1.1.conv_dw blocks.1.1.bn1',
        'features_3/pointwise': 'blocks.1.1.conv_pw blocks.1.1.bn2',
    },
    ('mobilenet_v1', 'pytorch_cifar'): {
        'features_0': 'conv1 bn1',
        'features_1/depthwise': 'layers.0.conv1 layers.0.bn1',
        'features_1/pointwise': 'layers.0.conv2 layers.0.bn2',
        'features_2/depthwise': 'layers.1.conv1 layers.1.bn1',
        'features_2/pointwise': 'layers.1.conv2 layers.1.bn2',
        'features_3/depthwise': 'layers.2.conv1 layers.2.bn1',
        'features_3/pointwise': 'layers.2.conv2 layers.2.bn2',
    },
    ('mobilenet_v1', 'pytorch_mobilenet'): {
        'features_0': 'model.0.0 model.0.1',
        'features_1/depthwise': 'model.1.0 model.1.1',
        'features_1/pointwise': 'model.1.3 model.1.4',
        'features_2/depthwise': 'model.2.0 model.2.1',
        'features_2/pointwise': 'model.2.3 model.2.4',
        'features_3/depthwise': 'model.3.0 model.3.1',
        'features_3/pointwise': 'model.3.3 model.3.4',
    },
}
GATES = {
    'features_1_0/squeeze_excite_1/fc1': 'blocks.0.0.se.conv_reduce',
    'features_1_0/squeeze_excite_1/fc2': 'blocks.0.0.se.conv_expand',
    'features_2_0/squeeze_excite_2/fc1': 'blocks.1.0.se.conv_reduce',
    'features_2_0/squeeze_excite_2/fc2': 'blocks.1.0.se.conv_expand',
}


OPTIONS = {
    'mobilenet_v1': {'stages': ((16, 1, 1), (32, 2, 2))},
    'mobilenet_v2': MOBILENET_V2,
    **dict.fromkeys(('efficientnet', 'efficientnet_lite'), EFFICIENTNET),
}


@pytest.mark.parametrize(
    ('name', 'naming', 'last'),
    [
        *((name, 'timm', 'classifier') for name in OPTIONS),
        ('efficientnet_lite', 'efficientnet_pytorch', '_fc'),
        ('mobilenet_v1', 'pytorch_cifar', 'linear'),
        ('mobilenet_v1', 'pytorch_mobilenet', 'fc'),
    ],
)
def test_keys_of_mobile_networks(name, naming, last):
    expected = {'classifier': last, **(GATES if name == 'efficientnet' else {})}
    for path, keys in STEPS[name, naming].items():
        expected |= dict(zip((f'{path}/conv', f'{path}/bn'), keys.split(), strict=True))
    assert places(models.MODELS.make(name, num_classes=5, **OPTIONS[name]), naming) == expected


SMALL_VGG = {'stages': ((3, 4), (5,))}
LARGE_VGG = {**SMALL_VGG, 'pool_size': 2, 'hidden_widths': (7, 8)}
FEATURES = {
    **{'conv1_0': 'features.0', 'bn1_0': 'features.1', 'conv1_1': 'features.3', 'bn1_1': 'features.4'},
    **{'conv2_0': 'features.7', 'bn2_0': 'features.8'},
}
DENSE = {'fc1': 'classifier.0', 'fc2': 'classifier.3', 'fc': 'classifier.6'}
WITHOUT_NORM = {'conv1_0': 'features.0', 'conv1_1': 'features.2', 'conv2_0': 'features.5'}


@pytest.mark.parametrize(
    ('options', 'naming', 'expected'),
    [
        (LARGE_VGG, 'torchvision', FEATURES | DENSE),
        (LARGE_VGG | {'batch_norm': False}, 'torchvision', WITHOUT_NORM | DENSE),
        (SMALL_VGG, 'pytorch_cifar', FEATURES | {'fc': 'classifier'}),
    ],
)
def test_keys_of_vgg(options, naming, expected):
    assert places(vgg.vgg(5, **options), naming) == expected


def test_keys_of_the_common_cifar_resnets():
    blocks = {
        f'layer{stage}_0/{part}': f'layer{stage}.0.{part}'
        for stage in (1, 2, 3)
        for part in ('conv1', 'bn1', 'conv2', 'bn2')
    }
    expected = {'conv1': 'conv1', 'bn1': 'bn1', **blocks, 'fc': 'linear'}
    assert places(small('cifar_resnet'), 'pytorch_cifar') == expected


def keys(text, *, prefixes=('',)):
    """The weight and the bias of each of several layers, behind each prefix."""
    return [f'{prefix}{layer}.{kind}' for prefix in prefixes for layer in text.split() for kind in ('weight', 'bias')]


LAYERS = [f'encoder.layers.encoder_layer_{index}.' for index in range(2)]
VIT = {
    'torchvision_old': [
        *('class_token', 'encoder.pos_embedding', *keys('conv_proj encoder.ln heads.head')),
        *keys('ln_1 ln_2 self_attention.out_proj mlp.linear_1 mlp.linear_2', prefixes=LAYERS),
        *(f'{layer}self_attention.in_proj_{kind}' for layer in LAYERS for kind in ('weight', 'bias')),
    ],
    'timm': [
        *('cls_token', 'pos_embed', *keys('patch_embed.proj norm head')),
        *keys('norm1 norm2 attn.qkv attn.proj mlp.fc1 mlp.fc2', prefixes=['blocks.0.', 'blocks.1.']),
    ],
}


@pytest.mark.parametrize('naming', list(VIT))
def test_keys_of_a_vit(naming):
    module = small('vit', pool='token')
    slots = layout.slots(shapes_of(module), layout.namings_of(module)[naming])
    assert {slot.key for slot in slots.values()} == set(VIT[naming])
    for index in range(2):
        for leaf in ('kernel', 'bias'):
            thirds = [slots['params', f'block{index}', 'attention', part, leaf] for part in ('query', 'key', 'value')]
            assert [(slot.piece, slot.pieces) for slot in thirds] == [(0, 3), (1, 3), (2, 3)]
            assert len({slot.key for slot in thirds}) == 1


@pytest.mark.parametrize(('naming', 'stage', 'head'), [('microsoft', 0, 'head'), ('timm', 1, 'head.fc')])
def test_keys_of_a_swin(naming, stage, head):
    module = small('swin', depths=(2, 2))
    blocks = [f'layers.{part}.blocks.{index}.' for part in range(2) for index in range(2)]
    expected = keys('norm1 norm2 attn.qkv attn.proj mlp.fc1 mlp.fc2', prefixes=blocks)
    expected += keys(f'patch_embed.proj patch_embed.norm norm {head} layers.{stage}.downsample.norm')
    expected += [f'{block}attn.relative_position_bias_table' for block in blocks]
    slots = layout.slots(shapes_of(module), layout.namings_of(module)[naming]).values()
    assert sorted(slot.key for slot in slots) == sorted([*expected, f'layers.{stage}.downsample.reduction.weight'])
    assert {slot.pieces for slot in slots} == {1}

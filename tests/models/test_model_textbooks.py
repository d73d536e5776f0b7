"""Networks against the same networks in NumPy and float64, written as in their papers."""

import itertools
import math

import jax
import numpy as np
import pytest
import textbook_layers as layers
from small_models import slow

from rfn_jax import models

O0 = {'xla_backend_optimization_level': 0}


def mlp(p, x, *, widths):
    x = x.reshape(len(x), -1)
    for number in range(1, len(widths) + 1):
        x = layers.relu(layers.batch_norm(layers.dense(x, p[f'fc{number}']), p[f'bn{number}']))
    return layers.dense(x, p['fc'])


def vgg(p, x, *, stages, pool_size=1, hidden_widths=(), batch_norm=True):
    for stage, widths_of_stage in enumerate(stages, start=1):
        for index in range(len(widths_of_stage)):
            x = layers.conv(x, p[f'conv{stage}_{index}'])
            x = layers.relu(layers.batch_norm(x, p[f'bn{stage}_{index}']) if batch_norm else x)
        x = layers.windows(x, 2, 2).max(axis=(-2, -1))
    # An image of 2 rows and columns has as many bins of one pixel, and one of 3 has bins of two that overlap.
    bins = layers.windows(x, x.shape[1] - pool_size + 1, 1).mean(axis=(-2, -1))
    x = bins.transpose(0, 3, 1, 2).reshape(len(x), -1)  # channels first
    for number in range(1, len(hidden_widths) + 1):
        x = layers.relu(layers.dense(x, p[f'fc{number}']))
    return layers.dense(x, p['fc'])


def residual_blocks(p, stage_sizes, block):
    """The parameters of each block, and the strides of its convolutions."""
    for stage, size in enumerate(stage_sizes, start=1):
        for index in range(size):
            stride = 2 if stage > 1 and index == 0 else 1
            yield p[f'layer{stage}_{index}'], (stride, 1) if block == 'basic' else (1, stride, 1)


def resnet(p, x, *, stage_sizes, widths, block, shortcut, stem_strides):
    x = layers.relu(layers.batch_norm(layers.conv(x, p['conv1'], stem_strides), p['bn1']))
    for q, strides in residual_blocks(p, stage_sizes, block):
        y, stride = x, max(strides)
        for number, step in enumerate(strides, start=1):
            y = layers.batch_norm(layers.conv(y, q[f'conv{number}'], step), q[f'bn{number}'])
            y = layers.relu(y) if number < len(strides) else y
        if x.shape != y.shape and shortcut == 'projection':
            x = layers.batch_norm(layers.conv(x, q['downsample_conv'], stride), q['downsample_bn'])
        elif x.shape != y.shape:
            before = (y.shape[-1] - x.shape[-1]) // 2
            narrow, x = x[:, ::stride, ::stride], np.zeros_like(y)
            x[..., before : before + narrow.shape[-1]] = narrow
        x = layers.relu(y + x)
    return layers.dense(x.mean(axis=(1, 2)), p['fc'])


def preact_resnet(p, x, *, stage_sizes, widths, stem_width, block, final_norm):
    x = layers.conv(x, p['conv1'])
    for q, strides in residual_blocks(p, stage_sizes, block):
        activated = y = layers.relu(layers.batch_norm(x, q['bn1']))
        for number, step in enumerate(strides, start=1):
            y = y if number == 1 else layers.relu(layers.batch_norm(y, q[f'bn{number}']))
            y = layers.conv(y, q[f'conv{number}'], step)
        x = y + (x if x.shape == y.shape else layers.conv(activated, q['downsample_conv'], max(strides)))
    x = layers.relu(layers.batch_norm(x, p['bn'])) if final_norm else x
    return layers.dense(x.mean(axis=(1, 2)), p['fc'])


def densenet(
    p, x, *, block_sizes, growth_rate, initial_features, bottleneck, stem_kernel=7, stem_strides=2, stem_pool=True
):
    assert p['conv0']['kernel'].shape == (stem_kernel, stem_kernel, 3, initial_features)
    x = layers.relu(layers.batch_norm(layers.conv(x, p['conv0'], stem_strides), p['norm0']))
    x = layers.windows(layers.padded(x, 1, -np.inf), 3, 2).max(axis=(-2, -1)) if stem_pool else x
    for block, size in enumerate(block_sizes, start=1):
        for index in range(1, size + 1):
            q = p[f'denseblock{block}_denselayer{index}']
            y = layers.conv(layers.relu(layers.batch_norm(x, q['norm1'])), q['conv1'])
            x = np.concatenate([x, layers.conv(layers.relu(layers.batch_norm(y, q['norm2'])), q['conv2'])], axis=-1)
            assert (y.shape[-1], q['conv2']['kernel'].shape[-1]) == (bottleneck * growth_rate, growth_rate)
        if block < len(block_sizes):
            q = p[f'transition{block}']
            x = layers.windows(layers.conv(layers.relu(layers.batch_norm(x, q['norm'])), q['conv']), 2, 2).mean(
                axis=(-2, -1)
            )
    return layers.dense(layers.relu(layers.batch_norm(x, p['norm5'])).mean(axis=(1, 2)), p['classifier'])


def vit(p, x, *, patch_size, pool, width, depth, heads, mlp_width):
    """Patches row by row, behind the class token if there is one; softmax of q k / sqrt(d), head by head."""
    x = layers.patches(x, p['patch_embedding'], patch_size).reshape(len(x), -1, width)
    assert ('class_token' in p) == (pool == 'token')
    if pool == 'token':
        x = np.concatenate([np.tile(p['class_token'], (len(x), 1, 1)), x], axis=1)
    x = x + p['positions']
    for index in range(depth):
        block = p[f'block{index}']
        attention, normed = block['attention'], layers.layer_norm(x, block['ln1'], 1e-6)
        x = x + attention['out']['bias']
        for head in range(heads):
            q, k, v = (
                normed @ attention[name]['kernel'][:, head] + attention[name]['bias'][head]
                for name in ('query', 'key', 'value')
            )
            weights = layers.softmax(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
            x = x + weights @ v @ attention['out']['kernel'][head]
        assert block['fc1']['kernel'].shape[1] == mlp_width
        x = x + layers.perceptron(layers.layer_norm(x, block['ln2'], 1e-6), block)
    x = layers.layer_norm(x, p['ln'], 1e-6)
    return layers.dense(x[:, 0] if pool == 'token' else x.mean(axis=1), p['fc'])


def window_attention(x, p, heads, window, shift):
    """Windows are not cut out of the image and not rolled.

    Each position attends to all of those that fall into its window of a grid that begins `shift` rows and columns inside.
    """
    batch, height, width, channels = x.shape
    lengths = [math.ceil(length / window) * window for length in (height, width)]
    x = np.pad(x, ((0, 0), (0, lengths[0] - height), (0, lengths[1] - width), (0, 0))).reshape(batch, -1, channels)
    places = np.array(list(itertools.product(*map(range, lengths))))
    grid = (places - [shift if length > window else 0 for length in lengths]) // window
    together = (grid[:, None] == grid[None]).all(axis=-1)
    differences = np.clip(places[:, None] - places[None], 1 - window, window - 1) + window - 1
    table = p['relative_position_bias_table'].reshape(2 * window - 1, 2 * window - 1, heads)
    bias = table[differences[..., 0], differences[..., 1]]
    q, k, v = np.split(layers.dense(x, p['qkv']), 3, axis=-1)
    out, size = np.zeros_like(x), channels // heads
    for head in range(heads):
        part = np.s_[..., head * size : (head + 1) * size]
        scores = q[part] @ k[part].transpose(0, 2, 1) / math.sqrt(size) + bias[..., head]
        out[part] = layers.softmax(np.where(together, scores, -np.inf)) @ v[part]
    return layers.dense(out, p['proj']).reshape(batch, *lengths, channels)[:, :height, :width]


def merged_patches(x, p):
    x = np.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    out = np.zeros((len(x), x.shape[1] // 2, x.shape[2] // 2, 4 * x.shape[3]))
    for i, j in itertools.product(range(out.shape[1]), range(out.shape[2])):
        corners = [(2 * i, 2 * j), (2 * i + 1, 2 * j), (2 * i, 2 * j + 1), (2 * i + 1, 2 * j + 1)]
        out[:, i, j] = np.concatenate([x[:, row, column] for row, column in corners], axis=-1)
    return layers.dense(layers.layer_norm(out, p['norm'], 1e-5), p['reduction'])


def swin(p, x, *, patch_size, width, depths, heads, window_size, mlp_ratio):
    x = layers.layer_norm(layers.patches(x, p['features_0_0'], patch_size), p['features_0_2'], 1e-5)
    for stage, depth in enumerate(depths):
        x = merged_patches(x, p[f'features_{2 * stage}']) if stage else x
        assert x.shape[-1] == width * 2**stage
        for index in range(depth):
            block = p[f'features_{2 * stage + 1}_{index}']
            normed, shift = layers.layer_norm(x, block['norm1'], 1e-5), window_size // 2 if index % 2 else 0
            x = x + window_attention(normed, block['attn'], heads[stage], window_size, shift)
            assert block['fc1']['kernel'].shape[1] == mlp_ratio * x.shape[-1]
            x = x + layers.perceptron(layers.layer_norm(x, block['norm2'], 1e-5), block)
    return layers.dense(layers.layer_norm(x, p['norm'], 1e-5).mean(axis=(1, 2)), p['head'])


def convnext(p, x, *, patch_size, depths, widths, kernel_size):
    x = layers.layer_norm(layers.patches(x, p['features_0_0'], patch_size), p['features_0_1'], 1e-6)
    for stage, depth in enumerate(depths):
        if stage:
            x = layers.patches(
                layers.layer_norm(x, p[f'features_{2 * stage}_0'], 1e-6), p[f'features_{2 * stage}_1'], 2
            )
        for index in range(depth):
            block = p[f'features_{2 * stage + 1}_{index}']
            assert block['conv']['kernel'].shape == (kernel_size, kernel_size, 1, widths[stage])
            y = layers.layer_norm(layers.depthwise(x, block['conv']), block['norm'], 1e-6)
            x = x + layers.perceptron(y, block) * block['layer_scale'][:, 0, 0]
    return layers.dense(layers.layer_norm(x.mean(axis=(1, 2)), p['classifier_0'], 1e-6), p['classifier_2'])


def mobilenet_v1(p, x, *, stages, width_multiplier, activation):
    def conv_norm(x, q, layer=layers.conv, stride=1):
        y = layers.relu(layers.batch_norm(layer(x, q['conv'], stride), q['bn']))
        return np.minimum(y, 6) if activation == 'relu6' else y

    strides = [stride if index == 0 else 1 for _, blocks, stride in stages for index in range(blocks)]
    x = conv_norm(x, p['features_0'], stride=2)
    for number, stride in enumerate(strides, start=1):
        q = p[f'features_{number}']
        x = conv_norm(conv_norm(x, q['depthwise'], layers.depthwise, stride), q['pointwise'])
    assert [p['features_0']['bn']['mean'].size, x.shape[-1]] == [8, 16]  # rounded from 32 and 48 times the multiplier
    return layers.dense(x.mean(axis=(1, 2)), p['classifier'])


VGG = {'stages': ((3, 4), (5,))}
LARGE_VGG = {**VGG, 'pool_size': 2, 'hidden_widths': (7, 8)}
RESNET = {'stage_sizes': (2, 1), 'widths': (3, 4)}
DENSENET = {'block_sizes': (2, 1), 'growth_rate': 3, 'initial_features': 5, 'bottleneck': 2}
VIT = {'width': 6, 'depth': 2, 'heads': 3, 'mlp_width': 7}
SWIN = {'patch_size': 2, 'width': 4, 'depths': (2, 2), 'heads': (1, 2), 'window_size': 3, 'mlp_ratio': 2}
MOBILENET_V1 = {'stages': ((16, 1, 1), (48, 2, 2)), 'width_multiplier': 0.25}
CONVNEXT = {'patch_size': 2, 'depths': (1, 2), 'widths': (4, 6), 'kernel_size': 3}


@pytest.mark.parametrize(
    ('textbook', 'shape', 'options'),
    [
        (mlp, (3, 4, 2), {'widths': (4, 3)}),
        (mlp, (3, 4, 2), {'widths': ()}),
        (vgg, (8, 8, 3), {**VGG, 'batch_norm': True}),
        (vgg, (13, 13, 3), {**VGG, 'batch_norm': False}),
        (vgg, (13, 13, 3), {**LARGE_VGG, 'batch_norm': True}),
        (vgg, (8, 8, 3), {**LARGE_VGG, 'batch_norm': False}),
        (resnet, (8, 8, 3), {**RESNET, 'block': 'basic', 'shortcut': 'projection', 'stem_strides': 1}),
        (resnet, (9, 9, 3), {**RESNET, 'block': 'bottleneck', 'shortcut': 'projection', 'stem_strides': 2}),
        (resnet, (9, 9, 3), {**RESNET, 'block': 'basic', 'shortcut': 'parameter_free', 'stem_strides': 2}),
        (resnet, (8, 8, 3), {**RESNET, 'block': 'bottleneck', 'shortcut': 'parameter_free', 'stem_strides': 1}),
        (preact_resnet, (7, 8, 3), {**RESNET, 'stem_width': 3, 'block': 'basic', 'final_norm': True}),
        (preact_resnet, (7, 8, 3), {**RESNET, 'stem_width': 3, 'block': 'basic', 'final_norm': False}),
        (preact_resnet, (7, 8, 3), {**RESNET, 'stem_width': 3, 'block': 'bottleneck', 'final_norm': True}),
        (preact_resnet, (7, 8, 3), {**RESNET, 'stem_width': 3, 'block': 'bottleneck', 'final_norm': False}),
        (densenet, (8, 9, 3), {**DENSENET, 'stem_kernel': 3, 'stem_strides': 1, 'stem_pool': False}),
        (densenet, (14, 17, 3), DENSENET),
        (densenet, (9, 11, 3), {**DENSENET, 'stem_kernel': 5, 'stem_pool': False}),
        (vit, (8, 8, 3), {**VIT, 'patch_size': 4, 'pool': 'mean'}),
        (vit, (6, 9, 1), {**VIT, 'patch_size': 3, 'pool': 'mean'}),
        (vit, (8, 8, 3), {**VIT, 'patch_size': 4, 'pool': 'token'}),
        (vit, (6, 9, 1), {**VIT, 'patch_size': 3, 'pool': 'token'}),
        slow(swin, (12, 24, 3), SWIN),  # 6 x 12 positions, then 3 x 6: one window of rows, which is not shifted
        (swin, (15, 22, 3), SWIN),  # 7 x 11, then 4 x 6: a row without patch, and padding before windows and merging
        (swin, (5, 3, 1), SWIN),  # 2 x 1, then 1 x 1: less than a window
        (swin, (11, 9, 3), {**SWIN, 'window_size': 2, 'depths': (1, 3)}),
        slow(swin, (12, 18, 3), {**SWIN, 'patch_size': 3, 'window_size': 4, 'depths': (3,), 'heads': (2,)}),
        (mobilenet_v1, (8, 8, 3), {**MOBILENET_V1, 'activation': 'relu'}),
        (mobilenet_v1, (11, 11, 3), {**MOBILENET_V1, 'activation': 'relu6'}),
        (convnext, (8, 8, 3), CONVNEXT),
        (convnext, (11, 15, 3), CONVNEXT),  # 5 x 7 positions, then 2 x 3: what fills no patch is left out
        (convnext, (4, 4, 1), {**CONVNEXT, 'kernel_size': 7}),  # wider than the image
        (convnext, (13, 9, 3), {'patch_size': 1, 'depths': (1, 1, 1), 'widths': (4, 6, 5), 'kernel_size': 5}),
    ],
)
def test_a_network_equals_its_textbook(textbook, shape, options):
    module = models.MODELS.make(textbook.__name__, num_classes=6, **options)
    variables, images = layers.drawn(module, shape), layers.images_of(shape)
    logits = jax.jit(lambda v, x: module.apply(v, x, train=False), compiler_options=O0)(variables, images)
    expected = textbook(layers.merged(variables), np.float64(images), **options)
    assert np.ptp(expected, axis=0).max() > 1e-3  # the images do differ
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shapes import shapes_of
from textbook_layers import batch_norm, conv, randomized, relu

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import hooks
from rfn_jax.models.families import resnet


def network(variables, x, *, stage_sizes, block, shortcut, stem_strides=1):
    p, s = variables['params'], variables['batch_stats']
    x = relu(batch_norm(conv(np.float64(x), p['conv1']['kernel'], stem_strides), p['bn1'], s['bn1']))
    for stage, size in enumerate(stage_sizes, start=1):
        for index in range(size):
            stride = 2 if stage > 1 and index == 0 else 1
            bp, bs = p[f'layer{stage}_{index}'], s[f'layer{stage}_{index}']
            strides = (stride, 1) if block == 'basic' else (1, stride, 1)
            y = x
            for number, step in enumerate(strides, start=1):
                y = batch_norm(conv(y, bp[f'conv{number}']['kernel'], step), bp[f'bn{number}'], bs[f'bn{number}'])
                y = relu(y) if number < len(strides) else y
            if x.shape != y.shape and shortcut == 'projection':
                projected = conv(x, bp['downsample_conv']['kernel'], stride)
                x = batch_norm(projected, bp['downsample_bn'], bs['downsample_bn'])
            elif x.shape != y.shape:
                before = (y.shape[-1] - x.shape[-1]) // 2
                narrow, x = x[:, ::stride, ::stride], np.zeros_like(y)
                x[..., before : before + narrow.shape[-1]] = narrow
            x = relu(y + x)
    return x.mean(axis=(1, 2)) @ p['fc']['kernel'] + p['fc']['bias']


@pytest.mark.parametrize('block', ['basic', 'bottleneck'])
@pytest.mark.parametrize('shortcut', ['projection', 'parameter_free'])
@pytest.mark.parametrize(('size', 'stem_strides'), [(8, 1), (9, 2)])
def test_the_network_equals_the_textbook(block, shortcut, size, stem_strides):
    options = {'stage_sizes': (2, 1), 'block': block, 'shortcut': shortcut, 'stem_strides': stem_strides}
    module = resnet.resnet(5, widths=(3, 4), **options)
    x = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    shapes = shapes_of(module, size)
    variables = randomized(shapes)
    logits = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, x)
    expected = network(variables, x, **options)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_groups_and_base_width_widen_the_bottleneck():
    module = resnet.resnet(5, stage_sizes=(1,), widths=(8,), block='bottleneck', groups=2, base_width=32)
    shapes = shapes_of(module)['params']['layer1_0']
    kernels = [shapes[f'conv{number}']['kernel'].shape for number in (1, 2, 3)]
    assert kernels == [(1, 1, 8, 8), (3, 3, 4, 8), (1, 1, 8, 32)]  # 8 * 32 / 64 channels in each of 2 groups


def test_the_stem_of_imagenet_quarters_the_image():
    module = models.MODELS.make('resnet18', num_classes=10)
    with hooks.outputs('layer1_0') as found:
        jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 65, 64, 3))))
    assert found[0].shape == (1, 17, 16, 64)


@pytest.mark.parametrize(('channels', 'width', 'before'), [(4, 8, 2), (3, 8, 2), (16, 32, 8)])
@pytest.mark.parametrize('size', [6, 7])
def test_the_parameter_free_shortcut_takes_every_second_pixel_and_pads_channels(channels, width, before, size):
    x = np.random.default_rng(0).random((2, size, size, channels)).astype(np.float32)  # positive: ReLU changes nothing
    block = resnet.ResidualBlock(width, 'basic', 2, 'parameter_free')
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=False))
    assert set(shapes['params']) == {'conv1', 'bn1', 'conv2', 'bn2'}
    silent = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)  # the residual branch gives 0
    out = np.asarray(block.apply(silent, x, train=False))
    expected = np.zeros((2, (size + 1) // 2, (size + 1) // 2, width), np.float32)
    expected[..., before : before + channels] = x[:, ::2, ::2]
    np.testing.assert_array_equal(out, expected)


def test_a_shortcut_between_equal_shapes_has_no_parameters():
    block = resnet.ResidualBlock(4, 'basic', 1, 'projection')
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), jnp.zeros((1, 4, 4, 4)), train=False))
    assert 'downsample_conv' not in shapes['params']


@pytest.mark.parametrize('depth', [8, 20, 32, 110])
def test_a_cifar_resnet_has_as_many_layers_with_weights_as_its_depth(depth):
    module = resnet.cifar_resnet(10, depth=depth, width=2)
    shapes = shapes_of(module)
    kernels = [path for path, _ in jax.tree_util.tree_leaves_with_path(shapes['params']) if path[-1].key == 'kernel']
    assert len(kernels) == depth


@pytest.mark.parametrize('depth', [0, 2, 7, 18, 21, -4])
def test_a_bad_depth(depth):
    with pytest.raises(errors.InputError, match=rf'depth of a CIFAR ResNet must be 6n \+ 2 .*, got {depth}$'):
        models.MODELS.make('cifar_resnet', num_classes=10, depth=depth)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'block': 'bottlneck'}, r"unknown residual block 'bottlneck'; did you mean 'bottleneck'\?"),
        ({'shortcut': 'projektion'}, r"unknown shortcut 'projektion'; did you mean 'projection'\?"),
        ({'stage_sizes': (1, 1)}, r'stage_sizes \(1, 1\) and widths \(64, 128, 256, 512\) need the same number'),
        ({'stage_sizes': (), 'widths': ()}, r'stage_sizes \(\) and widths \(\) need'),
        ({'stage_sizes': (1, 0, 1, 1)}, r'stage_sizes\[1\] must be an integer of at least 1, got 0'),
        ({'stem_strides': 0}, 'stem_strides must be an integer of at least 1, got 0'),
        ({'stem_kernel': 4}, 'stem_kernel must be odd, got 4'),
        ({'groups': 2}, "groups 2 and base_width 64 need block 'bottleneck'; with 'basic' they must be 1 and 64"),
        (
            {'block': 'bottleneck', 'base_width': 3, 'widths': (8, 8, 8, 64)},
            r'widths .* times base_width 3 must be mul',
        ),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(errors.InputError, match=message):
        models.MODELS.make('resnet', num_classes=10, **options)


def test_a_bad_width():
    with pytest.raises(errors.InputError, match=r'widths\[0\] must be an integer of at least 1, got 0'):
        resnet.cifar_resnet(10, width=0)

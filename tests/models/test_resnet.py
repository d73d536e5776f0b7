import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import resnet


def randomised(variables, seed=0):
    """Variables with random values everywhere, so that a batch normalisation left out would show."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        value = rng.normal(size=leaf.shape) / np.sqrt(max(np.prod(leaf.shape[:-1]), 1))
        return np.float32(np.abs(value) + 0.5 if path[-1].key in ('var', 'scale') else value)

    return jax.tree_util.tree_map_with_path(draw, variables)


# The network of the paper in NumPy, float64.


def conv(x, kernel, stride):
    k = kernel.shape[0]
    x = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum('nijcab,abcd->nijd', windows, kernel.astype(np.float64))


def batch_norm(x, params, stats):
    return (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5) * params['scale'] + params['bias']


def relu(x):
    return np.maximum(x, 0)


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
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))
    variables = randomised(shapes)
    logits = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, x)
    expected = network(variables, x, **options)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


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
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False))
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
        ({'stage_sizes': (1, 0, 1, 1)}, r'stage_sizes \(1, 0, 1, 1\).* must be positive'),
        ({'stem_strides': 0}, 'stem_strides 0 must be positive'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(errors.InputError, match=message):
        models.MODELS.make('resnet', num_classes=10, **options)


def test_a_bad_width():
    with pytest.raises(errors.InputError, match=r'widths \(0, 0, 0\)'):
        resnet.cifar_resnet(10, width=0)

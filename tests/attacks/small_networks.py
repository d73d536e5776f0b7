"""Small classifiers with random variables, and the same in plain JAX, for the tests of surrogate transforms.

The plain ones are functions of a classifier and images. `wrap(branch, name)` is used instead of the branch of the residual
sum of a block; where a branch has ReLUs, it can be called with others: `branch(x, relu)`.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from attacks import ascent

from rfn_jax import attacks, models
from rfn_jax.attacks import attack as attack_lib
from rfn_jax.core import losses, rng

OPTIONS = {
    'resnet': {'stage_sizes': (1, 1), 'widths': (3, 4)},
    'bottleneck': {'stage_sizes': (1, 1), 'widths': (2, 3), 'block': 'bottleneck', 'shortcut': 'parameter_free'},
    'vgg': {'stages': ((4, 4), (5,))},
    'mlp': {'widths': (8, 6)},
    'vit': {'patch_size': 3, 'width': 4, 'depth': 2, 'heads': 2, 'mlp_width': 6},
    'densenet': {
        'block_sizes': (1, 2), 'growth_rate': 2, 'initial_features': 4, 'bottleneck': 2,
        'stem_kernel': 3, 'stem_strides': 1, 'stem_pool': False,
    },
    'mobilenet_v2': {'stages': ((2, 8, 2, 2),), 'width_multiplier': 0.25, 'stem_strides': 1},
    'mobilenet_v3_small': {
        'blocks': ((3, 16, 8, True, 'relu', 1), (3, 24, 8, True, 'hard_swish', 1)), 'hidden_width': 8,
    },
    'efficientnet': {'stages': ((1, 3, 8, 1, 1), (2, 3, 8, 1, 1)), 'width_multiplier': 0.25},
}  # fmt: skip
MEAN, STD = 0.4, 0.3

RNG = np.random.default_rng(1)
IMAGES = RNG.uniform(0.2, 0.8, (6, 6, 6, 3)).astype(np.float32)
COTANGENT = RNG.normal(size=(6, 5)).astype(np.float32)
LABELS = RNG.integers(5, size=6).astype(np.int32)
KEYS = rng.example_keys(jax.random.key(3), np.arange(6))

# A surrogate that no interception reaches.
FUNCTION = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, jnp.zeros((108, 5)))


def module(kind):
    return models.MODELS.make({'bottleneck': 'resnet'}.get(kind, kind), num_classes=5, **OPTIONS[kind])


@functools.cache
def classifier(kind, seed=0, network=None):
    """A classifier of images `[B, 6, 6, 3]` into 5 classes."""
    network = network or module(kind)
    template = models.abstract(network, (6, 6, 3), num_classes=5, mean=(MEAN,), std=(STD,))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        value = rng.normal(size=leaf.shape) / np.sqrt(max(np.prod(leaf.shape[:-1]), 1))
        return jnp.asarray(np.abs(value) + 0.5 if path[-1].key in ('var', 'scale') else value, jnp.float32)

    return template.replace(variables=jax.tree_util.tree_map_with_path(draw, template.variables))


def conv_norm(x, params, stats, conv='conv', norm='bn', stride=1):
    kernel = params[conv]['kernel']
    pad, groups = kernel.shape[0] // 2, x.shape[-1] // kernel.shape[2]
    layout = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'), 'feature_group_count': groups}
    x = jax.lax.conv_general_dilated(x, kernel, (stride, stride), [(pad, pad)] * 2, **layout)
    return batch_norm(x, params[norm], stats[norm]) if norm else x


def batch_norm(x, params, stats):
    return (x - stats['mean']) / jnp.sqrt(stats['var'] + 1e-5) * params['scale'] + params['bias']


def dense(x, params):
    return x @ params['kernel'] + params['bias']


def plain(branch, name=None):
    del name
    return branch


def mlp(network, x, relus):
    p, s = network.variables['params'], network.variables['batch_stats']
    x = ((x - MEAN) / STD).reshape(len(x), -1)
    for number, relu in enumerate(relus, start=1):
        x = relu(batch_norm(dense(x, p[f'fc{number}']), p[f'bn{number}'], s[f'bn{number}']))
    return dense(x, p['fc'])


def resnet(network, x, wrap=plain, keep=lambda x: x, relu=nn.relu):
    p, s = network.variables['params'], network.variables['batch_stats']

    def branch(bp, bs, stride, x, relu=relu):
        x = relu(conv_norm(x, bp, bs, 'conv1', 'bn1', stride))
        return conv_norm(x, bp, bs, 'conv2', 'bn2')

    x = relu(conv_norm((x - MEAN) / STD, p, s, 'conv1', 'bn1'))
    for name, stride in (('layer1_0', 1), ('layer2_0', 2)):
        bp, bs = p[name], s[name]
        is_projected = 'downsample_conv' in bp
        skip = conv_norm(x, bp, bs, 'downsample_conv', 'downsample_bn', stride) if is_projected else x
        x = relu(keep(skip) + wrap(functools.partial(branch, bp, bs, stride), name)(x))
    return dense(x.mean(axis=(1, 2)), p['fc'])


def vit(network, x, wrap=plain, keep=lambda x: x):
    p = network.variables['params']

    def norm(x, params):
        return nn.LayerNorm(epsilon=1e-6).apply({'params': params}, x)

    def attention(bp, x):
        y = norm(x, bp['ln1'])
        return nn.MultiHeadDotProductAttention(2).apply({'params': bp['attention']}, y, y)

    def perceptron(bp, x):
        return dense(nn.gelu(dense(norm(x, bp['ln2']), bp['fc1']), approximate=False), bp['fc2'])

    x = (x - MEAN) / STD
    patches = x.reshape(len(x), 2, 3, 2, 3, 3).swapaxes(2, 3).reshape(len(x), 4, 27)
    x = patches @ p['patch_embedding']['kernel'].reshape(27, 4) + p['patch_embedding']['bias'] + p['positions']
    for name in ('block0', 'block1'):
        for branch in (attention, perceptron):
            x = keep(x) + wrap(functools.partial(branch, p[name]), name)(x)
    return dense(norm(x, p['ln']).mean(axis=1), p['fc'])


def densenet(network, x, wrap=plain, relu=nn.relu):
    """The ReLU of the stem is always the true one."""
    p, s = network.variables['params'], network.variables['batch_stats']

    def norm_relu_conv(x, name, number=''):
        x = relu(batch_norm(x, p[name][f'norm{number}'], s[name][f'norm{number}']))
        return conv_norm(x, p[name], None, f'conv{number}', norm=None)

    def layer(x, name):
        branch = wrap(lambda x: norm_relu_conv(norm_relu_conv(x, name, 1), name, 2), name)
        return jnp.concatenate([x, branch(x)], axis=-1)

    x = nn.relu(conv_norm((x - MEAN) / STD, p, s, 'conv0', 'norm0'))
    x = norm_relu_conv(layer(x, 'denseblock1_denselayer1'), 'transition1')
    x = x.reshape(len(x), 3, 2, 3, 2, -1).mean(axis=(2, 4))
    x = layer(layer(x, 'denseblock2_denselayer1'), 'denseblock2_denselayer2')
    return dense(relu(batch_norm(x, p['norm5'], s['norm5'])).mean(axis=(1, 2)), p['classifier'])


def mobilenet_v2(network, x, wrap=plain, head_relu6=nn.relu6):
    """Its first block has no residual sum."""
    p, s = network.variables['params'], network.variables['batch_stats']

    def inverted(name, stride, x, relu=nn.relu6):
        bp, bs = p[name], s[name]
        x = relu(conv_norm(x, bp['expand_0'], bs['expand_0']))
        x = relu(conv_norm(x, bp['depthwise_1'], bs['depthwise_1'], stride=stride))
        return conv_norm(x, bp['project_2'], bs['project_2'])

    x = inverted('features_1', 2, nn.relu6(conv_norm((x - MEAN) / STD, p['features_0'], s['features_0'])))
    x = x + wrap(functools.partial(inverted, 'features_2', 1), 'features_2')(x)
    return dense(head_relu6(conv_norm(x, p['features_3'], s['features_3'])).mean(axis=(1, 2)), p['classifier'])


PLAIN = {'resnet': resnet, 'vit': vit, 'densenet': densenet, 'mobilenet_v2': mobilenet_v2}


@jax.jit
def logits_of(surrogate, images=IMAGES, keys=KEYS, step=0):
    """The logits of any surrogate, compiled once per architecture."""
    return attack_lib.logits(surrogate, images, keys, step)


@jax.jit
def gradient(surrogate, images=IMAGES, cotangent=COTANGENT, keys=KEYS):
    """The gradient of `cotangent * logits` with respect to the images, and the logits; compiled once per architecture."""
    logits, pullback = jax.vjp(lambda images: attack_lib.logits(surrogate, images, keys, 0), images)
    return pullback(cotangent)[0], logits


def assert_another_gradient(surrogate, network, forward):
    """Asserts that a surrogate has the logits of a network, but the gradient of a function of the images."""
    found, logits = gradient(surrogate)
    expected = jax.jit(lambda x, c: jax.vjp(forward, x)[1](c)[0])(IMAGES, COTANGENT)
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max(), rtol=1e-5)
    plain, plain_logits = gradient(network)
    np.testing.assert_array_equal(logits, plain_logits)
    assert np.max(np.abs(found - plain)) > 0.1 * np.max(np.abs(plain))


EPS = 8 / 255


def attack(*surrogate_transforms, **options):
    """Two steps in the L2 ball."""
    options = {'direction': attacks.steepest('l2'), 'step_size': EPS / 2, 'steps': 2} | options
    limits = attacks.Budget(EPS, 'l2')
    return attacks.GradientAttack(name='test', limits=limits, surrogate_transforms=surrogate_transforms, **options)


def plain_attack(surrogate, images, labels, keys=None):
    """The two steps, one after another; for a surrogate that varies by step, `keys` are the keys of the examples."""

    @jax.jit
    def gradient(surrogate, x, keys, step):
        return jax.grad(lambda x: jnp.sum(losses.cross_entropy(attack_lib.logits(surrogate, x, keys, step), labels)))(x)

    def at_step(x, t):
        return gradient(surrogate, x, None if keys is None else ascent.fold(keys, t + 1, 0), t)

    return ascent.ascend(at_step, images, norm='l2', eps=EPS, alpha=EPS / 2, steps=2)

"""Small classifiers with random variables, and their parts in plain JAX, for the tests of surrogate transforms.

The parts of a network are `(stem, blocks, head)`; each block is `(branch, skip, after)`, and stands for
`x -> after(skip(x) + branch(x))`. The ReLUs are an argument of the parts; for a ResNet, they are an argument of its branches.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

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
        'block_sizes': (1, 2),
        'growth_rate': 2,
        'initial_features': 4,
        'bottleneck': 2,
        'stem_kernel': 3,
        'stem_strides': 1,
        'stem_pool': False,
    },
    'mobilenet_v2': {'stages': ((2, 8, 2, 2),), 'width_multiplier': 0.25, 'stem_strides': 1},
    'mobilenet_v3_small': {
        'blocks': ((3, 16, 8, True, 'relu', 1), (3, 24, 8, True, 'hard_swish', 1)),
        'hidden_width': 8,
    },
    'efficientnet': {'stages': ((1, 3, 8, 1, 1), (2, 3, 8, 1, 1)), 'width_multiplier': 0.25},
}
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


def classifier(kind, seed=0, network=None):
    """A classifier of images `[B, 6, 6, 3]` into 5 classes."""
    network = network or module(kind)
    template = models.abstract(network, (6, 6, 3), num_classes=5, mean=(MEAN,), std=(STD,))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        value = rng.normal(size=leaf.shape) / np.sqrt(max(np.prod(leaf.shape[:-1]), 1))
        return jnp.asarray(np.abs(value) + 0.5 if path[-1].key in ('var', 'scale') else value, jnp.float32)

    return template.replace(variables=jax.tree_util.tree_map_with_path(draw, template.variables))


def conv(x, kernel, stride=1):
    pad, groups = kernel.shape[0] // 2, x.shape[-1] // kernel.shape[2]
    layout = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'), 'feature_group_count': groups}
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), [(pad, pad)] * 2, **layout)


def batch_norm(x, params, stats):
    return (x - stats['mean']) / jnp.sqrt(stats['var'] + 1e-5) * params['scale'] + params['bias']


def resnet_parts(network):
    """The parts of a classifier of kind 'resnet'."""
    p, s = network.variables['params'], network.variables['batch_stats']

    def stem(images):
        return nn.relu(batch_norm(conv((images - MEAN) / STD, p['conv1']['kernel']), p['bn1'], s['bn1']))

    def block(name, stride):
        bp, bs = p[name], s[name]

        def branch(x, relu=nn.relu):
            y = relu(batch_norm(conv(x, bp['conv1']['kernel'], stride), bp['bn1'], bs['bn1']))
            return batch_norm(conv(y, bp['conv2']['kernel']), bp['bn2'], bs['bn2'])

        def skip(x):
            if 'downsample_conv' not in bp:
                return x
            x = conv(x, bp['downsample_conv']['kernel'], stride)
            return batch_norm(x, bp['downsample_bn'], bs['downsample_bn'])

        return branch, skip, nn.relu

    def head(x):
        return x.mean(axis=(1, 2)) @ p['fc']['kernel'] + p['fc']['bias']

    return stem, [block('layer1_0', 1), block('layer2_0', 2)], head


def vit_parts(network):
    """The parts of a classifier of kind 'vit'; each of its blocks becomes two."""
    p = network.variables['params']

    def norm(x, name, params):
        return nn.LayerNorm(epsilon=1e-6).apply({'params': params[name]}, x)

    def stem(images):
        x = (images - MEAN) / STD
        patches = x.reshape(len(x), 2, 3, 2, 3, 3).swapaxes(2, 3).reshape(len(x), 4, 27)
        return patches @ p['patch_embedding']['kernel'].reshape(27, 4) + p['patch_embedding']['bias'] + p['positions']

    def attention(bp):
        module = nn.MultiHeadDotProductAttention(2)

        def branch(x):
            y = norm(x, 'ln1', bp)
            return module.apply({'params': bp['attention']}, y, y)

        return branch, lambda x: x, lambda x: x

    def perceptron(bp):
        def branch(x):
            y = norm(x, 'ln2', bp) @ bp['fc1']['kernel'] + bp['fc1']['bias']
            return nn.gelu(y, approximate=False) @ bp['fc2']['kernel'] + bp['fc2']['bias']

        return branch, lambda x: x, lambda x: x

    def head(x):
        return norm(x, 'ln', p).mean(axis=1) @ p['fc']['kernel'] + p['fc']['bias']

    blocks = [part(p[name]) for name in ('block0', 'block1') for part in (attention, perceptron)]
    return stem, blocks, head


def densenet_parts(network, relu=nn.relu):
    """The parts of a classifier of kind 'densenet': concatenations become sums of zero-padded features."""
    p, s = network.variables['params'], network.variables['batch_stats']

    def norm_relu_conv(x, name, number=''):
        params, stats = p[name], s[name]
        y = relu(batch_norm(x, params[f'norm{number}'], stats[f'norm{number}']))
        return conv(y, params[f'conv{number}']['kernel'])

    def fill(x, before, after):
        return jnp.pad(x, [(0, 0)] * 3 + [(before, after)])

    def stem(images):
        return relu(batch_norm(conv((images - MEAN) / STD, p['conv0']['kernel']), p['norm0'], s['norm0']))

    def layer(name, after):
        def branch(x):
            return fill(norm_relu_conv(norm_relu_conv(x, name, 1), name, 2), x.shape[-1], 0)

        return branch, lambda x: fill(x, 0, 2), after

    def transition(x):
        y = norm_relu_conv(x, 'transition1')
        return y.reshape(len(y), 3, 2, 3, 2, -1).mean(axis=(2, 4))

    def head(x):
        x = relu(batch_norm(x, p['norm5'], s['norm5'])).mean(axis=(1, 2))
        return x @ p['classifier']['kernel'] + p['classifier']['bias']

    blocks = [
        layer('denseblock1_denselayer1', transition),
        layer('denseblock2_denselayer1', lambda x: x),
        layer('denseblock2_denselayer2', lambda x: x),
    ]
    return stem, blocks, head


def mobilenet_v2_parts(network, relu6=nn.relu6):
    """The parts of a classifier of kind 'mobilenet_v2', whose first block has no residual sum."""
    p, s = network.variables['params'], network.variables['batch_stats']

    def conv_norm(x, params, stats, stride=1):
        return batch_norm(conv(x, params['conv']['kernel'], stride), params['bn'], stats['bn'])

    def inverted(x, name, stride=1):
        bp, bs = p[name], s[name]
        x = relu6(conv_norm(x, bp['expand_0'], bs['expand_0']))
        x = relu6(conv_norm(x, bp['depthwise_1'], bs['depthwise_1'], stride))
        return conv_norm(x, bp['project_2'], bs['project_2'])

    def stem(images):
        x = relu6(conv_norm((images - MEAN) / STD, p['features_0'], s['features_0']))
        return inverted(x, 'features_1', stride=2)

    def head(x):
        x = relu6(conv_norm(x, p['features_3'], s['features_3'])).mean(axis=(1, 2))
        return x @ p['classifier']['kernel'] + p['classifier']['bias']

    return stem, [(functools.partial(inverted, name='features_2'), lambda x: x, lambda x: x)], head


PARTS = {'resnet': resnet_parts, 'vit': vit_parts, 'densenet': densenet_parts, 'mobilenet_v2': mobilenet_v2_parts}


def forward(parts, images):
    """Returns the logits, and the inputs of all blocks and of the head."""
    stem, blocks, head = parts
    inputs = [stem(images)]
    for branch, skip, after in blocks:
        inputs.append(after(skip(inputs[-1]) + branch(inputs[-1])))
    return head(inputs[-1]), inputs


def backward(parts, images, cotangent, block_gradient):
    """Returns the gradient with respect to the images, block by block.

    `block_gradient(index, branch, skip, x, g)` is the gradient with respect to the input of a block, where `g` is that with
    respect to its sum.
    """
    stem, blocks, head = parts
    _, inputs = forward(parts, images)
    g = jax.vjp(head, inputs[-1])[1](cotangent)[0]
    for index in reversed(range(len(blocks))):
        branch, skip, after = blocks[index]
        x = inputs[index]
        g = jax.vjp(after, skip(x) + branch(x))[1](g)[0]
        g = block_gradient(index, branch, skip, x, g)
    return jax.vjp(stem, images)[1](g)[0]


@jax.jit
def logits_of(surrogate, images=IMAGES, keys=KEYS, step=0):
    """The logits of any surrogate, compiled once per architecture."""
    return attack_lib.logits(surrogate, images, keys, step)


@jax.jit
def gradient(surrogate, images=IMAGES, cotangent=COTANGENT, keys=KEYS):
    """The gradient of `cotangent * logits` with respect to the images, and the logits; compiled once per architecture."""
    logits, pullback = jax.vjp(lambda images: attack_lib.logits(surrogate, images, keys, 0), images)
    return pullback(cotangent)[0], logits


def assert_another_gradient(surrogate, network, expected):
    """Asserts that a surrogate has the logits of a network, but the expected gradient instead of that of the network."""
    found, logits = gradient(surrogate)
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max(), rtol=1e-5)
    plain, plain_logits = gradient(network)
    np.testing.assert_array_equal(logits, plain_logits)
    assert np.max(np.abs(found - plain)) > 0.1 * np.max(np.abs(plain))


def counted(kind):
    """A network of a kind, and the shapes of the images with which it has been traced so far."""
    traces, plain = [], type(module(kind))

    class Counted(plain):
        def __call__(self, x, *, train=False):
            traces.append(x.shape)
            return super().__call__(x, train=train)

    fields = {
        name: getattr(module(kind), name) for name in plain.__dataclass_fields__ if name not in ('parent', 'name')
    }
    return Counted(**fields), traces


EPS = 8 / 255


def attack(*surrogate_transforms, **options):
    """Two steps in the L2 ball."""
    options = {'direction': attacks.steepest('l2'), 'step_size': EPS / 2, 'steps': 2} | options
    limits = attacks.Budget(EPS, 'l2')
    return attacks.GradientAttack(name='test', limits=limits, surrogate_transforms=surrogate_transforms, **options)


def plain_attack(surrogate, images, labels, keys=None):
    """The two steps, one after another; for a surrogate that varies by step, `keys` are the keys of the examples."""

    @jax.jit
    def loss_gradient(surrogate, x, keys, step):
        return jax.grad(lambda x: jnp.sum(losses.cross_entropy(attack_lib.logits(surrogate, x, keys, step), labels)))(x)

    def fold(number, keys):
        return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)

    def norms(x):
        return np.sqrt(np.sum(x**2, axis=(1, 2, 3), keepdims=True))

    x = images
    for t in range(2):
        step_keys = None if keys is None else fold(0, fold(t + 1, keys))
        g = np.asarray(loss_gradient(surrogate, x, step_keys, t))
        change = x + EPS / 2 * g / norms(g) - images
        x = images + change * np.minimum(1, EPS / norms(change))
    return x

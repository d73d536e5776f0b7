"""Layers in NumPy and float64, for networks written as in their papers.

`p` holds the parameters and the running statistics of a layer by name, as `merged` gives them.
"""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special


def randomized(variables, seed=0):
    """Variables with random values everywhere, so that a batch normalization left out would show."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        assert leaf.dtype == np.float32
        value = rng.normal(size=leaf.shape) / np.sqrt(max(np.prod(leaf.shape[:-1]), 1))
        return np.float32(np.abs(value) + 0.5 if path[-1].key in ('var', 'scale') else value)

    return jax.tree_util.tree_map_with_path(draw, variables)


def drawn(module, shape):
    """Random variables of a module for an image of a shape; without statistics, none of them are small."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False))
    if 'batch_stats' in shapes:
        return randomized(shapes)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: (rng.normal(size=leaf.shape) / 2).astype(np.float32), shapes)


def merged(variables):
    """Parameters and statistics together, by the names of modules and leaves, in float64."""
    leaves = flax.traverse_util.flatten_dict(variables)
    return flax.traverse_util.unflatten_dict({path[1:]: np.float64(leaf) for path, leaf in leaves.items()})


def images_of(shape, count=2):
    """Random images."""
    return np.random.default_rng(1).normal(size=(count, *shape)).astype(np.float32)


def windows(x, size, stride):
    """`size x size` windows, as the last two axes."""
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]


def padded(x, size, value=0.0):
    """`size` rows and columns on each side."""
    return np.pad(x, ((0, 0), (size, size), (size, size), (0, 0)), constant_values=value)


def conv(x, p, stride=1):
    """A convolution with an odd kernel that is centered on each pixel; a bias is optional."""
    k = p['kernel'].shape[0]
    return np.einsum('nijcab,abcd->nijd', windows(padded(x, k // 2), k, stride), p['kernel']) + p.get('bias', 0)


def depthwise(x, p, stride=1):
    """A convolution of each channel with its own kernel."""
    parts = [conv(x[..., [c]], {'kernel': p['kernel'][..., [c]]}, stride) for c in range(x.shape[-1])]
    return np.concatenate(parts, axis=-1) + p.get('bias', 0)


def batch_norm(x, p):
    return (x - p['mean']) / np.sqrt(p['var'] + 1e-5) * p['scale'] + p['bias']


def relu(x):
    return np.maximum(x, 0)


def layer_norm(x, p, epsilon):
    """Normalization of the last axis."""
    centered = x - x.mean(axis=-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + epsilon) * p['scale'] + p['bias']


def gelu(x):
    """The exact GELU."""
    return x * (1 + scipy.special.erf(x / np.sqrt(2))) / 2


def softmax(x):
    """Over the last axis."""
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def dense(x, p):
    return x @ p['kernel'] + p.get('bias', 0)


def perceptron(x, p):
    """Two dense layers, `fc1` and `fc2`, around a GELU."""
    return dense(gelu(dense(x, p['fc1'])), p['fc2'])


def patches(x, p, size):
    """A convolution of patches that do not overlap, patch by patch; what fills no patch is left out."""
    return np.einsum('nijcab,abcd->nijd', windows(x, size, size), p['kernel']) + p['bias']

"""Layers in NumPy and float64, for networks written as in their papers."""

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
    """Random parameters of a module for an image of a shape, none of them small."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False))
    return jax.tree.map(lambda leaf: (rng.normal(size=leaf.shape) / 2).astype(np.float32), shapes['params'])


def images_of(shape, count=2):
    """Random images."""
    return np.random.default_rng(1).normal(size=(count, *shape)).astype(np.float32)


def assert_rounded(module, params, images, expected):
    """Asserts that a network which computes in bfloat16 gives float32 logits that are near to the exact ones, not equal."""
    apply = jax.jit(
        lambda p: module.apply({'params': p}, images), compiler_options={'xla_backend_optimization_level': 0}
    )
    logits = apply(params)
    assert logits.dtype == jnp.float32
    assert 0 < np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()


def conv(x, kernel, stride):
    k = kernel.shape[0]
    x = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum('nijcab,abcd->nijd', windows, kernel.astype(np.float64))


def batch_norm(x, params, stats):
    return (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5) * params['scale'] + params['bias']


def relu(x):
    return np.maximum(x, 0)


def layer_norm(x, p, epsilon):
    """Normalization of the last axis; `p` holds `scale` and `bias`."""
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
    """`p` holds `kernel` and perhaps `bias`."""
    return x @ p['kernel'] + p.get('bias', 0)


def perceptron(x, p):
    """Two dense layers, `fc1` and `fc2`, around a GELU."""
    return dense(gelu(dense(x, p['fc1'])), p['fc2'])


def patches(x, p, size):
    """A convolution of patches that do not overlap, patch by patch; what fills no patch is left out."""
    rows, columns = x.shape[1] // size, x.shape[2] // size
    out = np.zeros((len(x), rows, columns, p['kernel'].shape[-1]))
    for i in range(rows):
        for j in range(columns):
            patch = x[:, i * size : (i + 1) * size, j * size : (j + 1) * size]
            out[:, i, j] = np.einsum('nabc,abcd->nd', patch, p['kernel']) + p['bias']
    return out

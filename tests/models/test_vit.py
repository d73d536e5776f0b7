import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import vit


def layer_norm(x, p):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) * p['scale'] + p['bias']


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def dense(x, p):
    return x @ p['kernel'] + p['bias']


def attention(x, p):
    """Softmax of q k / sqrt(d), head by head."""
    out = np.zeros_like(x)
    for head in range(p['query']['kernel'].shape[1]):
        q, k, v = (x @ p[name]['kernel'][:, head] + p[name]['bias'][head] for name in ('query', 'key', 'value'))
        scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
        out += scores / scores.sum(axis=-1, keepdims=True) @ v @ p['out']['kernel'][head]
    return out + p['out']['bias']


def network(p, images, patch, depth):
    """The vision transformer in NumPy, float64: patches row by row."""
    rows, columns = images.shape[1] // patch, images.shape[2] // patch
    tokens = [
        np.einsum(
            'nabc,abcd->nd',
            np.float64(images)[:, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch],
            p['patch_embedding']['kernel'],
        )
        + p['patch_embedding']['bias']
        for i in range(rows)
        for j in range(columns)
    ]
    x = np.stack(tokens, axis=1) + p['positions']
    for index in range(depth):
        block = p[f'block{index}']
        x = x + attention(layer_norm(x, block['ln1']), block['attention'])
        x = x + dense(gelu(dense(layer_norm(x, block['ln2']), block['fc1'])), block['fc2'])
    return dense(layer_norm(x, p['ln']).mean(axis=1), p['fc'])


@pytest.mark.parametrize(('shape', 'patch'), [((8, 8, 3), 4), ((6, 9, 1), 3)])
def test_the_network_equals_the_textbook(shape, patch):
    module = vit.vit(5, patch_size=patch, width=6, depth=2, heads=3, mlp_width=7)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *shape)).astype(np.float32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False))
    params = jax.tree.map(lambda leaf: (rng.normal(size=leaf.shape) / 2).astype(np.float32), shapes['params'])
    logits = jax.jit(lambda p, x: module.apply({'params': p}, x, train=False))(params, images)
    np.testing.assert_allclose(logits, network(params, images, patch, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('shape', [(9, 8, 3), (8, 10, 3), (2, 2, 3)])
def test_a_patch_size_that_does_not_divide_the_image(shape):
    module = models.MODELS.make('vit', num_classes=5)
    with pytest.raises(errors.InputError, match=rf'patch_size 4 does not divide an image of {shape[0]} x {shape[1]}'):
        models.abstract(module, shape, num_classes=5)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'heads': 5}, 'width 192, depth 6, heads 5'),
        ({'heads': 0}, 'heads 0'),
        ({'patch_size': 0}, 'patch_size 0'),
        ({'depth': -1}, 'depth -1'),
        ({'mlp_width': 0}, 'mlp_width 0'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(errors.InputError, match=f'a width that heads divides, got .*{message}'):
        models.MODELS.make('vit', num_classes=5, **options)

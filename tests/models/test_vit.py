import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import textbook_layers
from textbook_layers import drawn, images_of

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models.families import vit
from rfn_jax.models.weights import layout

O0 = {'xla_backend_optimization_level': 0}
TINY = {'width': 6, 'depth': 2, 'heads': 3, 'mlp_width': 7}


def attention(x, p):
    """Softmax of q k / sqrt(d), head by head."""
    out = np.zeros_like(x)
    for head in range(p['query']['kernel'].shape[1]):
        q, k, v = (x @ p[name]['kernel'][:, head] + p[name]['bias'][head] for name in ('query', 'key', 'value'))
        weights = textbook_layers.softmax(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
        out += weights @ v @ p['out']['kernel'][head]
    return out + p['out']['bias']


def network(p, images, patch, depth):
    """The vision transformer in NumPy, float64: patches row by row, behind the class token if there is one."""
    x = textbook_layers.patches(np.float64(images), p['patch_embedding'], patch)
    x = x.reshape(len(x), -1, x.shape[-1])
    if 'class_token' in p:
        x = np.concatenate([np.tile(p['class_token'], (len(x), 1, 1)), x], axis=1)
    x = x + p['positions']
    for index in range(depth):
        block = p[f'block{index}']
        x = x + attention(textbook_layers.layer_norm(x, block['ln1'], 1e-6), block['attention'])
        x = x + textbook_layers.perceptron(textbook_layers.layer_norm(x, block['ln2'], 1e-6), block)
    x = textbook_layers.layer_norm(x, p['ln'], 1e-6)
    return textbook_layers.dense(x[:, 0] if 'class_token' in p else x.mean(axis=1), p['fc'])


@pytest.mark.parametrize('pool', ['mean', 'token'])
@pytest.mark.parametrize(('shape', 'patch'), [((8, 8, 3), 4), ((6, 9, 1), 3)])
def test_the_network_equals_the_textbook(shape, patch, pool):
    module = vit.vit(5, patch_size=patch, pool=pool, **TINY)
    params = drawn(module, shape)
    assert ('class_token' in params) == (pool == 'token')
    images = images_of(shape)
    logits = jax.jit(lambda p, x: module.apply({'params': p}, x, train=False), compiler_options=O0)(params, images)
    np.testing.assert_allclose(logits, network(params, images, patch, 2), rtol=1e-4, atol=1e-4)


def test_the_form_for_small_images_has_64_positions():
    module = models.MODELS.make('cifar_vit', num_classes=10)
    shapes = models.abstract(module, (32, 32, 3), num_classes=10).variables['params']
    assert shapes['positions'].shape == (1, 64, 192)
    assert module == models.MODELS.make('vit', num_classes=10)


def test_dropout_is_behind_the_positions_the_attention_and_both_layers_of_the_perceptron():
    module = vit.vit(5, dropout=0.25, **TINY)
    params = drawn(module, (8, 8, 3))
    seen = []

    def visit(call, args, kwargs, context):
        if isinstance(context.module, nn.Dropout):
            seen.append(('/'.join(context.module.path), context.module.rate, args[0].shape[1:]))
        return call(*args, **kwargs)

    with nn.intercept_methods(visit):
        jax.eval_shape(lambda p: module.apply({'params': p}, jnp.zeros((2, 8, 8, 3)), train=False), params)
    block = [(4, 6), (4, 7), (4, 6)]
    expected = [('drop', (4, 6)), *(('block0/drop', s) for s in block), *(('block1/drop', s) for s in block)]
    assert seen == [(path, 0.25, shape) for path, shape in expected]


def test_dropout_acts_in_training_alone():
    images = images_of((8, 8, 3))
    silent, dropping = vit.vit(5, **TINY), vit.vit(5, dropout=0.5, **TINY)
    params = drawn(silent, (8, 8, 3))

    @functools.partial(jax.jit, compiler_options=O0)
    def run(params, key):
        def logits(module, train, **rngs):
            return module.apply({'params': params}, images, train=train, rngs=rngs)

        equal = logits(dropping, False), logits(silent, False), logits(silent, True)
        return equal, logits(dropping, True, dropout=key)

    ((evaluated, *equal), first), (_, again), (_, other) = (run(params, jax.random.key(i)) for i in (0, 0, 1))
    for logits in equal:
        np.testing.assert_array_equal(logits, evaluated)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).min() > 0
    assert np.abs(first - evaluated).min() > 0


def test_bfloat16_of_a_class_token():
    images = images_of((8, 8, 3))
    exact, rounded = (vit.vit(5, pool='token', dtype=dtype, **TINY) for dtype in (jnp.float32, jnp.bfloat16))
    params = drawn(exact, (8, 8, 3))
    assert jax.tree.leaves(drawn(rounded, (8, 8, 3)))[0].dtype == np.float32
    textbook_layers.assert_rounded(rounded, params, images, network(params, images, 4, 2))


# Keys of the files of timm, and of those that torchvision publishes.
BLOCK = {
    'torchvision_old': (
        *('ln_1.weight', 'ln_1.bias', 'ln_2.weight', 'ln_2.bias'),
        *('self_attention.in_proj_weight', 'self_attention.in_proj_bias'),
        *('self_attention.out_proj.weight', 'self_attention.out_proj.bias'),
        *('mlp.linear_1.weight', 'mlp.linear_1.bias', 'mlp.linear_2.weight', 'mlp.linear_2.bias'),
    ),
    'timm': (
        *('norm1.weight', 'norm1.bias', 'norm2.weight', 'norm2.bias'),
        *('attn.qkv.weight', 'attn.qkv.bias', 'attn.proj.weight', 'attn.proj.bias'),
        *('mlp.fc1.weight', 'mlp.fc1.bias', 'mlp.fc2.weight', 'mlp.fc2.bias'),
    ),
}
KEYS = {
    'torchvision_old': (
        *('class_token', 'encoder.pos_embedding', 'conv_proj.weight', 'conv_proj.bias'),
        *(f'encoder.layers.encoder_layer_{i}.{key}' for i in range(2) for key in BLOCK['torchvision_old']),
        *('encoder.ln.weight', 'encoder.ln.bias', 'heads.head.weight', 'heads.head.bias'),
    ),
    'timm': (
        *('cls_token', 'pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias'),
        *(f'blocks.{i}.{key}' for i in range(2) for key in BLOCK['timm']),
        *('norm.weight', 'norm.bias', 'head.weight', 'head.bias'),
    ),
}


@pytest.mark.parametrize('naming', list(KEYS))
def test_keys_of_published_files(naming):
    module = vit.vit(5, pool='token', **TINY)
    variables = models.abstract(module, (8, 8, 3), num_classes=5).variables
    slots = layout.slots(variables, layout.namings_of(module)[naming])
    assert sorted({slot.key for slot in slots.values()}) == sorted(KEYS[naming])
    for index in range(2):
        for leaf in ('kernel', 'bias'):
            thirds = [slots['params', f'block{index}', 'attention', part, leaf] for part in ('query', 'key', 'value')]
            assert [(slot.piece, slot.pieces) for slot in thirds] == [(0, 3), (1, 3), (2, 3)]
            assert len({slot.key for slot in thirds}) == 1


@pytest.mark.parametrize('shape', [(9, 8, 3), (8, 10, 3), (2, 2, 3)])
def test_a_patch_size_that_does_not_divide_the_image(shape):
    module = models.MODELS.make('vit', num_classes=5)
    with pytest.raises(errors.InputError, match=rf'patch_size 4 does not divide an image of {shape[0]} x {shape[1]}'):
        models.abstract(module, shape, num_classes=5)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'heads': 5}, 'heads 5 must divide the width 192 of a ViT'),
        ({'heads': 0}, 'heads must be an integer of at least 1, got 0'),
        ({'patch_size': 0}, 'patch_size must be an integer of at least 1, got 0'),
        ({'depth': -1}, 'depth must be an integer of at least 1, got -1'),
        ({'mlp_width': 0}, 'mlp_width must be an integer of at least 1, got 0'),
        ({'dropout': -0.1}, 'dropout must be a finite number at least 0 and below 1, got -0.1'),
        ({'dropout': math.nan}, 'dropout must be a finite number at least 0 and below 1, got nan'),
        ({'pool': 'tokens'}, "unknown pool 'tokens'; did you mean 'token'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(errors.InputError, match=message):
        models.MODELS.make('vit', num_classes=5, **options)

"""Dropout and stochastic depth, in all families that have them."""

import functools

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shapes import calls, shapes_of, trace
from small_models import KINDS, SEQUENTIAL, options_of, shape_of, slow, slow_but, small, without_dropout
from textbook_layers import drawn, images_of, randomized

from rfn_jax import models
from rfn_jax.models import hooks, inverted_residual, layers
from rfn_jax.models.families import convnext, densenet, swin

O0 = {'xla_backend_optimization_level': 0}
RATES = ('dropout', 'auxiliary_dropout', 'stochastic_depth')


@pytest.mark.parametrize('name', slow_but(SEQUENTIAL, KINDS))
def test_random_numbers_are_drawn_in_training_if_a_rate_is_not_0(name):
    shape = shape_of(name)
    trace(without_dropout(name), shape, train=True, seed=None)
    options = {'hidden_widths': (8, 8)} if name == 'vgg' else {}  # without hidden layers it has no dropout
    for rate in set(RATES) & set(options_of(name)):
        module = small(name, **options, **{r: 0.0 for r in RATES if r in options_of(name)} | {rate: 0.1})
        trace(module, shape, seed=None)
        with pytest.raises(flax.errors.InvalidRngError, match='dropout'):
            trace(module, shape, train=True, seed=None)


@pytest.mark.parametrize(
    ('name', 'rates'),
    [
        *(('vgg', []), ('vgg11', [0.5, 0.5]), ('densenet', [0.0] * 3), ('mobilenet_v1', []), ('squeezenet', [0.5])),
        *(slow('googlenet', [0.7, 0.7, 0.2]), slow('cifar_inception_v3', [0.5])),
        *((name, [0.2]) for name in ('mobilenet_v2', 'mobilenet_v3_small', 'efficientnet', 'efficientnet_lite')),
    ],
)
def test_the_usual_rates_of_dropout(name, rates):
    found = [call.module for call in calls(small(name), nn.Dropout, shape_of(name), train=True)]
    assert [dropout.rate for dropout in found] == rates
    assert not any(dropout.deterministic for dropout in found)
    assert all(call.module.deterministic for call in calls(small(name), nn.Dropout, shape_of(name)))


def test_dropout_of_a_vit_is_behind_the_positions_the_attention_and_both_layers_of_the_perceptron():
    module = models.MODELS.make('vit', num_classes=5, dropout=0.25, width=6, depth=2, heads=3, mlp_width=7)
    block = [(2, 4, 6), (2, 4, 7), (2, 4, 6)]
    expected = [('drop', (2, 4, 6)), *(('block0/drop', s) for s in block), *(('block1/drop', s) for s in block)]
    found = calls(module, nn.Dropout)
    assert [(call.path, call.x.shape) for call in found] == expected
    assert {call.module.rate for call in found} == {0.25}


@pytest.mark.parametrize(
    ('name', 'rate'),
    [('preact_resnet', 'dropout'), ('vit', 'dropout'), ('swin', 'dropout'), ('swin', 'stochastic_depth')],
)
def test_dropout_acts_in_training_alone_and_follows_its_key(name, rate):
    silent = without_dropout(name, **({'depths': (2,), 'heads': (1,)} if name == 'swin' else {}))
    random = silent.clone(**{rate: 0.5})
    variables, images = drawn(silent, (8, 8, 3)), images_of((8, 8, 3), 4)

    @functools.partial(jax.jit, compiler_options=O0)
    def run(variables, key):
        def train(module):
            return module.apply(variables, images, train=True, mutable=['batch_stats'], rngs={'dropout': key})[0]

        evaluated = [module.apply(variables, images, train=False) for module in (silent, random)]
        return *evaluated, train(silent), train(random)

    results = [run(variables, jax.random.key(seed)) for seed in (0, 0, 1)]
    (plain, evaluated, undropped, first), (*_, again), (*_, other) = results
    np.testing.assert_array_equal(evaluated, plain)
    if 'batch_stats' not in variables:
        np.testing.assert_array_equal(undropped, plain)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert np.abs(first - undropped).max() > 1e-3


def test_dropout_of_a_densenet_acts_on_the_new_channels():
    x = images_of((8, 8, 3))
    layer, plain = (densenet.DenseLayer(16, 2, dropout, jnp.float32) for dropout in (0.75, 0.0))
    variables = randomized(shapes_of(layer))
    rngs = {'dropout': jax.random.key(0)}

    @functools.partial(jax.jit, compiler_options=O0)
    def both(variables):
        return [m.apply(variables, x, train=True, mutable=['batch_stats'], rngs=rngs)[0] for m in (layer, plain)]

    dropped, full = both(variables)
    np.testing.assert_array_equal(dropped[..., :3], x)
    kept = np.asarray(dropped != 0)[..., 3:]
    assert kept.mean() == pytest.approx(0.25, abs=0.05)
    np.testing.assert_allclose(dropped[..., 3:][kept], 4 * full[..., 3:][kept], rtol=1e-5)


@pytest.mark.parametrize(
    ('name', 'options', 'rates'),
    [
        ('convnext', {'stochastic_depth': 0.4}, [0, 0.2, 0.4]),
        # Two in each block.
        ('swin', {'stochastic_depth': 0.3, 'depths': (2, 2)}, [0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3]),
        ('swin', {'stochastic_depth': 0.3, 'depths': (1,), 'heads': (1,)}, [0, 0]),
        # Of four blocks, all but the first keep their shape, and so have a residual sum.
        ('efficientnet', {'stochastic_depth': 0.4, 'stages': ((1, 3, 8, 1, 2), (2, 5, 12, 3, 1))}, [0.1, 0.2, 0.3]),
    ],
)
def test_stochastic_depth_grows_from_block_to_block(name, options, rates):
    found = calls(small(name, **options), layers.StochasticDepth)
    assert [call.module.rate for call in found] == pytest.approx(rates)


def test_the_stochastic_depth_of_named_models():
    rates = {'swin_t': 0.2, 'swin_s': 0.3, 'swin_b': 0.5}
    rates |= {'convnext_tiny': 0.1, 'convnext_small': 0.4, 'convnext_base': 0.5, 'convnext_large': 0.5}
    assert {name: models.MODELS.make(name, num_classes=5).stochastic_depth for name in rates} == rates


def inverted(squeeze):
    return inverted_residual.InvertedResidual(8, 4, 3, 1, hooks.Relu6, squeeze=squeeze, stochastic_depth=0.6)


@pytest.mark.parametrize(
    ('block', 'silenced'),
    [
        (convnext.ConvNeXtBlock(3, 1.0, 0.5), []),
        (swin.SwinBlock(1, 2, 0, 2, 0.0, 0.5), ['attn', 'fc2']),  # the last layers of two branches
        (inverted(0), []),
        (inverted(2), []),
    ],
)
def test_each_branch_is_dropped_for_some_examples(block, silenced):
    x = images_of((4, 4, 4), 40)
    rng = np.random.default_rng(0)
    shapes = shapes_of(block, (4, 4, 4))
    variables = jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), shapes)
    variables = randomized(shapes) if 'batch_stats' in shapes else variables
    rngs, left_out = {'dropout': jax.random.key(0)}, []
    whole = block.clone(stochastic_depth=0.0)

    @functools.partial(jax.jit, compiler_options=O0)
    def both(variables):
        return [b.apply(variables, x, train=True, mutable=['batch_stats'], rngs=rngs)[0] - x for b in (whole, block)]

    for name in silenced or [None]:
        silent = {name: jax.tree.map(np.zeros_like, variables['params'][name])} if name else {}
        full, out = map(np.asarray, both({**variables, 'params': variables['params'] | silent}))
        gone = np.all(out == 0, axis=(1, 2, 3))
        np.testing.assert_allclose(out[~gone], full[~gone] / (1 - block.stochastic_depth), rtol=1e-4, atol=1e-4)
        assert np.abs(full).max(axis=(1, 2, 3)).min() > 1e-2
        assert abs(gone.mean() - block.stochastic_depth) < 0.25
        left_out.append(gone)
    assert len(left_out) == 1 or (left_out[0] != left_out[1]).any()

import itertools

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shapes import calls, shapes_of
from small_models import small
from textbook_layers import batch_norm, conv, randomized, relu

from rfn_jax import models
from rfn_jax.models import hooks, inverted_residual

O0 = {'xla_backend_optimization_level': 0}
ACTIVATIONS = {
    hooks.Relu6: lambda x: np.clip(x, 0, 6),
    hooks.HardSwish: lambda x: x * np.clip(x + 3, 0, 6) / 6,
    hooks.Silu: lambda x: x / (1 + np.exp(-x)),
}


def block(*sizes, activation=hooks.Relu6, **options):
    return inverted_residual.InvertedResidual(*sizes, activation, **options)


def variables_of(module, x, scale=1.0):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))
    return jax.tree.map(lambda leaf: np.float32(scale) * leaf, randomized(shapes))


def textbook(module, variables, x):
    """The block in NumPy, float64, with a gate that is a hard sigmoid."""
    p, s = variables['params'], variables['batch_stats']
    activation = ACTIVATIONS[module.activation]
    inside = {nn.relu: relu, nn.silu: ACTIVATIONS[hooks.Silu]}[module.squeeze_activation]
    place = itertools.count()

    def conv_norm(y, kind, strides=1):
        name = f'{kind}_{next(place)}'
        kernel = p[name]['conv']['kernel']
        if kind == 'depthwise':
            each = [conv(y[..., [c]], kernel[..., [c]], strides) for c in range(y.shape[-1])]
            return batch_norm(np.concatenate(each, axis=-1), p[name]['bn'], s[name]['bn'])
        return batch_norm(conv(y, kernel, 1), p[name]['bn'], s[name]['bn'])

    y = np.float64(x)
    if module.expanded != x.shape[-1]:
        y = activation(conv_norm(y, 'expand'))
    y = activation(conv_norm(y, 'depthwise', module.strides))
    if module.squeeze:
        parts = p[f'squeeze_excite_{next(place)}']
        fc1, fc2 = ({name: leaf.astype(np.float64) for name, leaf in parts[fc].items()} for fc in ('fc1', 'fc2'))
        scale = inside(y.mean(axis=(1, 2)) @ fc1['kernel'][0, 0] + fc1['bias']) @ fc2['kernel'][0, 0] + fc2['bias']
        y = y * (np.clip(scale + 3, 0, 6) / 6)[:, None, None]
    y = conv_norm(y, 'project')
    return x + y if x.shape == y.shape and module.strides == 1 else y


@pytest.mark.parametrize('activation', list(ACTIVATIONS))
@pytest.mark.parametrize(
    ('sizes', 'squeeze', 'names'),
    [
        ((8, 4, 3, 1), 0, ['depthwise_1', 'expand_0', 'project_2']),
        ((8, 5, 5, 1), 3, ['depthwise_1', 'expand_0', 'project_3', 'squeeze_excite_2']),
        ((8, 4, 5, 2), 0, ['depthwise_1', 'expand_0', 'project_2']),
        ((4, 4, 3, 1), 3, ['depthwise_0', 'project_2', 'squeeze_excite_1']),
        ((4, 6, 3, 2), 0, ['depthwise_0', 'project_1']),
    ],
)
def test_the_block_equals_the_textbook(sizes, squeeze, names, activation):
    gate = {'squeeze_activation': nn.silu if activation is hooks.Silu else nn.relu, 'gate': nn.hard_sigmoid}
    module = block(*sizes, activation=activation, squeeze=squeeze, **gate)
    x = 3 * np.random.default_rng(1).normal(size=(2, 7, 6, 4)).astype(np.float32)
    variables = variables_of(module, x, scale=2.0)  # so that relu6 cuts on both sides
    assert sorted(variables['params']) == names
    out = jax.jit(lambda v, x: module.apply(v, x, train=False), compiler_options=O0)(variables, x)
    np.testing.assert_allclose(out, textbook(module, variables, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('squeeze', [0, 2])
def test_stochastic_depth_drops_the_branch_of_some_examples(squeeze):
    x = np.random.default_rng(1).normal(size=(40, 2, 2, 4)).astype(np.float32)

    def branch(rate, rngs=None):
        module = block(8, 4, 3, 1, squeeze=squeeze, stochastic_depth=rate)
        return module.apply(variables_of(module, x), x, train=True, mutable=['batch_stats'], rngs=rngs)[0] - x

    whole = branch(0.0)  # which draws nothing
    assert np.abs(whole).max(axis=(1, 2, 3)).min() > 1e-2
    some = branch(0.6, {'dropout': jax.random.key(0)})
    kept = np.abs(some).max(axis=(1, 2, 3)) > 0
    assert 6 < kept.sum() < 26  # 16 are expected, give or take 3.1
    np.testing.assert_allclose(some[kept], whole[kept] / 0.4, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('sizes', 'sums'), [((8, 4, 3, 1), 1), ((8, 4, 3, 2), 0), ((8, 6, 3, 1), 0)])
def test_only_blocks_with_a_sum_have_a_hook_and_draw(sizes, sums):
    seen = []

    def visit(call, module, *args, **kwargs):
        seen.append(module.name)
        return call(*args, **kwargs)

    x = jnp.zeros((1, 1, 1, 4))  # one pixel: the shape is kept with any stride
    module = block(*sizes, stochastic_depth=0.5)
    with hooks.intercept(hooks.Residual, visit):
        variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))

    def train(variables):
        return module.apply(variables, x, train=True, mutable=['batch_stats'])

    assert seen == ['residual'] * sums
    if sums:
        with pytest.raises(flax.errors.InvalidRngError):
            jax.eval_shape(train, variables)
    else:
        jax.eval_shape(train, variables)


def test_activations_are_hooks_except_inside_the_gate():
    seen = []

    def visit(call, module, *args, **kwargs):
        seen.append('/'.join(module.path))
        return call(*args, **kwargs)

    module = block(8, 4, 3, 1, squeeze=2)
    with hooks.intercept(hooks.Activation, visit):
        jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 3, 3, 4)), train=False))
    assert seen == ['expand_0/activation', 'depthwise_1/activation']


@pytest.mark.parametrize('name', ['efficientnet_b0', 'mobilenet_v2', 'mobilenet_v3_small', 'mobilenet_v3_large'])
def test_the_forms_for_small_images_have_the_same_parameters(name):
    forms = [models.MODELS.make(form, num_classes=10) for form in (f'cifar_{name}', name)]
    assert shapes_of(forms[0]) == shapes_of(forms[1])


@pytest.mark.parametrize(('name', 'activation'), [('efficientnet', hooks.Silu), ('mobilenet_v2', hooks.Relu6)])
def test_normalizations_and_activations_of_networks(name, activation):
    module = small(name)
    assert {(bn.momentum, bn.epsilon) for bn, _ in calls(module, nn.BatchNorm).values()} == {(0.9, 1e-5)}
    assert {type(module) for module, _ in calls(module, hooks.Activation).values()} == {activation}


@pytest.mark.parametrize(
    ('channels', 'rounded'),
    [(1, 8), (8, 8), (8.8, 8), (11.2, 16), (12, 16), (16, 16), (19.9, 24), (20, 24), (22.4, 24), (44.8, 48)],
)
def test_channels_are_rounded_to_eights_but_not_down_by_a_tenth(channels, rounded):
    assert inverted_residual.round_channels(channels) == rounded

import itertools

import flax.errors
import flax.linen as nn
import jax
import numpy as np
import pytest
from shapes import calls, shapes_of, trace
from textbook_layers import batch_norm, conv, depthwise, images_of, merged, randomized, relu

from rfn_jax.models import hooks, inverted_residual

O0 = {'xla_backend_optimization_level': 0}
ACTIVATIONS = {
    hooks.Relu6: lambda x: np.clip(x, 0, 6),
    hooks.HardSwish: lambda x: x * np.clip(x + 3, 0, 6) / 6,
    hooks.Silu: lambda x: x / (1 + np.exp(-x)),
}


def block(*sizes, activation=hooks.Relu6, **options):
    return inverted_residual.InvertedResidual(*sizes, activation, **options)


def textbook(module, p, x):
    """The block in NumPy, float64, with a gate that is a hard sigmoid."""
    activation, place, y = ACTIVATIONS[module.activation], itertools.count(), x

    def conv_norm(y, kind, layer=conv, strides=1):
        q = p[f'{kind}_{next(place)}']
        return batch_norm(layer(y, q['conv'], strides), q['bn'])

    if module.expanded != x.shape[-1]:
        y = activation(conv_norm(y, 'expand'))
    y = activation(conv_norm(y, 'depthwise', depthwise, module.strides))
    if module.squeeze:
        q = p[f'squeeze_excite_{next(place)}']
        inside = {nn.relu: relu, nn.silu: ACTIVATIONS[hooks.Silu]}[module.squeeze_activation]
        scale = conv(inside(conv(y.mean(axis=(1, 2), keepdims=True), q['fc1'])), q['fc2'])
        y = y * np.clip(scale + 3, 0, 6) / 6
    y = conv_norm(y, 'project')
    return x + y if x.shape == y.shape and module.strides == 1 else y


@pytest.mark.parametrize(
    ('activation', 'sizes', 'squeeze', 'names'),
    [
        (hooks.Relu6, (8, 4, 3, 1), 0, ['depthwise_1', 'expand_0', 'project_2']),
        (hooks.Relu6, (4, 4, 3, 1), 3, ['depthwise_0', 'project_2', 'squeeze_excite_1']),
        (hooks.Relu6, (4, 6, 3, 2), 0, ['depthwise_0', 'project_1']),
        (hooks.HardSwish, (8, 5, 5, 1), 3, ['depthwise_1', 'expand_0', 'project_3', 'squeeze_excite_2']),
        (hooks.HardSwish, (8, 4, 5, 2), 0, ['depthwise_1', 'expand_0', 'project_2']),
        (hooks.Silu, (8, 5, 5, 1), 3, ['depthwise_1', 'expand_0', 'project_3', 'squeeze_excite_2']),
        (hooks.Silu, (4, 6, 3, 2), 0, ['depthwise_0', 'project_1']),
    ],
)
def test_the_block_equals_the_textbook(activation, sizes, squeeze, names):
    gate = {'squeeze_activation': nn.silu if activation is hooks.Silu else nn.relu, 'gate': nn.hard_sigmoid}
    module = block(*sizes, activation=activation, squeeze=squeeze, **gate)
    x = 3 * images_of((7, 6, 4))
    variables = jax.tree.map(
        lambda leaf: 2 * leaf, randomized(shapes_of(module, (7, 6, 4)))
    )  # relu6 cuts on both sides
    assert sorted(variables['params']) == names
    out = jax.jit(lambda v, x: module.apply(v, x, train=False), compiler_options=O0)(variables, x)
    np.testing.assert_allclose(out, textbook(module, merged(variables), np.float64(x)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('sizes', 'sums'), [((8, 4, 3, 1), 1), ((8, 4, 3, 2), 0), ((8, 6, 3, 1), 0)])
def test_only_blocks_with_a_sum_have_a_hook_and_draw(sizes, sums):
    shape = (1, 1, 4)  # one pixel: the shape is kept with any stride
    module = block(*sizes, squeeze=2, stochastic_depth=0.5)
    assert [call.path for call in calls(module, hooks.Residual, shape)] == ['residual'] * sums
    # Nothing inside of the gate is a hook.
    activations = [call.path for call in calls(module, hooks.Activation, shape)]
    assert activations == ['expand_0/activation', 'depthwise_1/activation']
    if sums:
        with pytest.raises(flax.errors.InvalidRngError):
            trace(module, shape, train=True, seed=None)
    else:
        trace(module, shape, train=True, seed=None)


@pytest.mark.parametrize(
    ('channels', 'rounded'),
    [(1, 8), (8, 8), (8.8, 8), (11.2, 16), (12, 16), (16, 16), (19.9, 24), (20, 24), (22.4, 24), (44.8, 48)],
)
def test_channels_are_rounded_to_eights_but_not_down_by_a_tenth(channels, rounded):
    assert inverted_residual.round_channels(channels) == rounded

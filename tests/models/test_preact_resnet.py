import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shapes import shapes_of
from textbook_layers import batch_norm, conv, randomized, relu

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models.families import preact_resnet


def network(variables, x, *, stage_sizes, block, final_norm):
    """The network of the paper in NumPy, float64."""
    p, s = variables['params'], variables['batch_stats']
    x = conv(np.float64(x), p['conv1']['kernel'], 1)
    for stage, size in enumerate(stage_sizes, start=1):
        for index in range(size):
            stride = 2 if stage > 1 and index == 0 else 1
            bp, bs = p[f'layer{stage}_{index}'], s[f'layer{stage}_{index}']
            strides = (stride, 1) if block == 'basic' else (1, stride, 1)
            activated = relu(batch_norm(x, bp['bn1'], bs['bn1']))
            y = activated
            for number, step in enumerate(strides, start=1):
                y = y if number == 1 else relu(batch_norm(y, bp[f'bn{number}'], bs[f'bn{number}']))
                y = conv(y, bp[f'conv{number}']['kernel'], step)
            if x.shape != y.shape:
                x = conv(activated, bp['downsample_conv']['kernel'], stride)
            x = x + y
    if final_norm:
        x = relu(batch_norm(x, p['bn'], s['bn']))
    return x.mean(axis=(1, 2)) @ p['fc']['kernel'] + p['fc']['bias']


@pytest.mark.parametrize('block', ['basic', 'bottleneck'])
@pytest.mark.parametrize('final_norm', [True, False])
def test_the_network_equals_the_textbook(block, final_norm):
    options = {'stage_sizes': (2, 1), 'block': block, 'final_norm': final_norm}
    module = preact_resnet.preact_resnet(5, widths=(3, 4), stem_width=3, **options)
    x = np.random.default_rng(1).normal(size=(2, 7, 8, 3)).astype(np.float32)
    variables = randomized(jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 7, 8, 3)))))
    logits = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, x)
    np.testing.assert_allclose(logits, network(variables, x, **options), rtol=1e-4, atol=1e-4)


def test_dropout_is_in_training_only():
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)

    def logits(dropout, *, train, key=0):
        module = preact_resnet.preact_resnet(5, stage_sizes=(1,), widths=(4,), stem_width=4, dropout=dropout)
        variables = randomized(shapes_of(module))
        rngs = {'dropout': jax.random.key(key)}
        return module.apply(variables, x, train=train, mutable=['batch_stats'], rngs=rngs)[0]

    np.testing.assert_array_equal(logits(0.5, train=False), logits(0.0, train=False))
    np.testing.assert_array_equal(logits(0.5, train=True), logits(0.5, train=True))
    assert np.abs(logits(0.5, train=True) - logits(0.0, train=True)).max() > 1e-2
    assert np.abs(logits(0.5, train=True) - logits(0.5, train=True, key=1)).max() > 1e-2


@pytest.mark.parametrize(('depth', 'widen_factor'), [(10, 1), (16, 4), (28, 10)])
def test_a_wide_resnet_has_its_depth_and_widths(depth, widen_factor):
    module = preact_resnet.cifar_wide_resnet(10, depth=depth, widen_factor=widen_factor)
    shapes = shapes_of(module)['params']
    kernels = [path for path, _ in jax.tree_util.tree_leaves_with_path(shapes) if path[-1].key == 'kernel']
    # The paper counts the shortcuts of the three stages among the d layers where k > 1, and the dense layer with them.
    shortcuts = sum(any(part.key == 'downsample_conv' for part in path) for path in kernels)
    assert len(kernels) - shortcuts == depth - 2
    assert shapes['fc']['kernel'].shape == (64 * widen_factor, 10)


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('preact_resnet', {'block': 'basik'}, "unknown residual block 'basik'; did you mean 'basic'"),
        ('preact_resnet', {'dropout': 1.0}, r'dropout must be a finite number at least 0 and below 1, got 1.0'),
        ('preact_resnet', {'widths': (4,)}, r'stage_sizes \(2, 2, 2, 2\) and widths \(4,\) need the same number'),
        ('preact_resnet', {'stem_width': 0}, 'stem_width must be an integer of at least 1, got 0'),
        ('cifar_wide_resnet', {'depth': 20}, r'depth of a wide ResNet must be 6n \+ 4 .*, got 20'),
        ('cifar_wide_resnet', {'widen_factor': 0}, 'widen_factor must be an integer of at least 1, got 0'),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(errors.InputError, match=message):
        models.MODELS.make(name, num_classes=10, **options)

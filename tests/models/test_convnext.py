import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import textbook_layers
from shapes import calls
from textbook_layers import drawn, images_of

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import layers
from rfn_jax.models.families import convnext

O0 = {'xla_backend_optimization_level': 0}
TINY = {'patch_size': 2, 'depths': (1, 2), 'widths': (4, 6), 'kernel_size': 3}


# The network of the paper in NumPy, float64.


def depthwise(x, p):
    k = p['kernel'].shape[0]
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    out = np.tile(p['bias'].astype(np.float64), (*x.shape[:3], 1))
    for i, j in itertools.product(range(k), repeat=2):
        out += padded[:, i : i + x.shape[1], j : j + x.shape[2]] * p['kernel'][i, j, 0]
    return out


def network(p, images, patch_size, depths):
    x = textbook_layers.layer_norm(
        textbook_layers.patches(np.float64(images), p['features_0_0'], patch_size), p['features_0_1'], 1e-6
    )
    for stage, depth in enumerate(depths):
        if stage:
            x = textbook_layers.layer_norm(x, p[f'features_{2 * stage}_0'], 1e-6)
            x = textbook_layers.patches(x, p[f'features_{2 * stage}_1'], 2)
        for index in range(depth):
            block = p[f'features_{2 * stage + 1}_{index}']
            y = textbook_layers.layer_norm(depthwise(x, block['conv']), block['norm'], 1e-6)
            x = x + textbook_layers.perceptron(y, block) * block['layer_scale'][:, 0, 0]
    return textbook_layers.dense(
        textbook_layers.layer_norm(x.mean(axis=(1, 2)), p['classifier_0'], 1e-6), p['classifier_2']
    )


@pytest.mark.parametrize(
    ('shape', 'options'),
    [
        ((8, 8, 3), {}),
        ((11, 15, 3), {}),  # 5 x 7 positions, then 2 x 3: what fills no patch is left out
        ((4, 4, 1), {'kernel_size': 7}),  # wider than the image
        ((13, 9, 3), {'patch_size': 1, 'depths': (1, 1, 1), 'widths': (4, 6, 5), 'kernel_size': 5}),
    ],
)
def test_the_network_equals_the_textbook(shape, options):
    options = TINY | options
    module = convnext.convnext(5, **options)
    params, images = drawn(module, shape), images_of(shape)
    logits = jax.jit(lambda p, x: module.apply({'params': p}, x), compiler_options=O0)(params, images)
    expected = network(params, images, options['patch_size'], options['depths'])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_the_form_for_small_images_ends_with_four_rows():
    module = models.MODELS.make('cifar_convnext', num_classes=10)
    _, state = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), capture_intermediates=True)
    )
    sizes = [state['intermediates'][f'features_{2 * stage + 1}_2']['__call__'][0].shape for stage in range(3)]
    assert sizes == [(1, 16, 16, 64), (1, 8, 8, 128), (1, 4, 4, 256)]


def test_the_number_of_parameters_of_the_largest():
    module = models.MODELS.make('convnext_large', num_classes=1000)
    shapes = models.abstract(module, (224, 224, 3), num_classes=1000).variables['params']
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == 197_767_336  # torchvision's


def test_branches_start_with_the_layer_scale():
    modules = [convnext.convnext(5, **TINY), convnext.convnext(5, **TINY, layer_scale=0.5)]

    def initial(key):
        params = [module.init(key, jnp.zeros((1, 8, 8, 3)))['params'] for module in modules]
        return [{block: p[block]['layer_scale'] for block in p if 'layer_scale' in p[block]} for p in params]

    for found, scale in zip(jax.jit(initial)(jax.random.key(0)), (1e-6, 0.5), strict=True):
        expected = {'features_1_0': (4, 1, 1), 'features_3_0': (6, 1, 1), 'features_3_1': (6, 1, 1)}
        assert jax.tree.map(jnp.shape, found) == expected
        assert all((leaf == np.float32(scale)).all() for leaf in found.values())


def test_stochastic_depth_grows_from_block_to_block():
    found = calls(convnext.convnext(5, stochastic_depth=0.4, **TINY), layers.StochasticDepth)
    rates = {path: module.rate for path, (module, _) in found.items()}
    assert rates == pytest.approx({'features_1_0/depth': 0, 'features_3_0/depth': 0.2, 'features_3_1/depth': 0.4})
    names = ('convnext_tiny', 'convnext_small', 'convnext_base', 'convnext_large')
    rates = [models.MODELS.make(name, num_classes=5).stochastic_depth for name in names]
    assert rates == [0.1, 0.4, 0.5, 0.5]


def test_stochastic_depth_drops_the_branches_of_examples():
    block = convnext.ConvNeXtBlock(3, 1.0, 0.5)
    x = images_of((4, 4, 4), 32)
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=False))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)

    @jax.jit
    def both(variables, key):
        trained = block.apply(variables, x, train=True, rngs={'dropout': key})
        return block.apply(variables, x, train=False), trained

    full, out = map(np.asarray, both(variables, jax.random.key(0)))
    gone = np.all(out == x, axis=(1, 2, 3))
    assert 4 < gone.sum() < 28
    np.testing.assert_allclose(out[~gone], (2 * full - x)[~gone], rtol=1e-4, atol=1e-4)


def test_nothing_is_drawn_at_rate_zero():
    module, images = convnext.convnext(5, stochastic_depth=0.0, **TINY), images_of((8, 8, 3))
    variables = {'params': drawn(module, (8, 8, 3))}

    def run(train):
        return jax.jit(lambda v: module.apply(v, images, train=train), compiler_options=O0)(variables)

    np.testing.assert_array_equal(run(True), run(False))


def test_bfloat16_computes_in_bfloat16_with_float32_parameters_and_logits():
    module = convnext.convnext(5, dtype=jnp.bfloat16, **TINY)
    params, images = drawn(module, (11, 15, 3)), images_of((11, 15, 3))
    textbook_layers.assert_rounded(module, params, images, network(params, images, 2, (1, 2)))
    blocks = jax.eval_shape(lambda p: module.apply({'params': p}, images, capture_intermediates=True)[1], params)
    outputs = {name: value['__call__'][0] for name, value in blocks['intermediates'].items() if name != '__call__'}
    types = {name: output.dtype for name, output in outputs.items()}
    assert types.pop('classifier_2') == jnp.float32
    assert set(types.values()) == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize('shape', [(7, 8, 3), (8, 7, 3)])
def test_an_image_that_is_too_small_is_refused(shape):
    module = models.MODELS.make('convnext', num_classes=5, depths=(1, 1), widths=(4, 6))
    message = f'{shape[0]} x {shape[1]} pixels is too small for this ConvNeXt, which needs at least 8 rows'
    with pytest.raises(errors.InputError, match=message):
        models.abstract(module, shape, num_classes=5)
    models.abstract(module, (8, 8, 3), num_classes=5)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'depths': (3, 3)}, r'depths \(3, 3\) and widths \(96, 192, 384, 768\) need the same number of stages'),
        ({'depths': (), 'widths': ()}, r'depths \(\) and widths \(\) need'),
        ({'depths': (3, 3, 0, 3)}, r'depths\[2\] must be an integer of at least 1, got 0'),
        ({'widths': (96, 192, -1, 768)}, r'widths\[2\] must be an integer of at least 1, got -1'),
        ({'patch_size': 0}, 'patch_size must be an integer of at least 1, got 0'),
        ({'kernel_size': 4}, 'kernel_size must be odd, got 4'),
        ({'kernel_size': -1}, 'kernel_size must be an integer of at least 1, got -1'),
        ({'stochastic_depth': 1.0}, r'stochastic_depth must be a finite number at least 0 and below 1, got 1.0'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(errors.InputError, match=message):
        models.MODELS.make('convnext', num_classes=5, **options)

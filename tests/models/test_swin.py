import functools
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
from rfn_jax.models.families import swin
from rfn_jax.models.weights import layout

O0 = {'xla_backend_optimization_level': 0}
TINY = {'patch_size': 2, 'width': 4, 'depths': (2, 2), 'heads': (1, 2), 'window_size': 3, 'mlp_ratio': 2}


# The network of the paper in NumPy, float64. Windows are not cut out of the image and not rolled: each position attends to
# all of those that fall into its window of a grid that begins `shift` rows and columns inside of the image.


def attention(x, p, heads, window, shift):
    batch, height, width, channels = x.shape
    padded = [math.ceil(length / window) * window for length in (height, width)]
    x = np.pad(x, ((0, 0), (0, padded[0] - height), (0, padded[1] - width), (0, 0))).reshape(batch, -1, channels)
    places = np.array(list(itertools.product(range(padded[0]), range(padded[1]))))
    shifts = [shift if length > window else 0 for length in padded]
    windows = (places - shifts) // window
    together = (windows[:, None] == windows[None]).all(axis=-1)
    differences = np.clip(places[:, None] - places[None], 1 - window, window - 1) + window - 1
    table = p['relative_position_bias_table'].reshape(2 * window - 1, 2 * window - 1, heads)
    bias = table[differences[..., 0], differences[..., 1]]
    q, k, v = np.split(textbook_layers.dense(x, p['qkv']), 3, axis=-1)
    out, size = np.zeros_like(x), channels // heads
    for head in range(heads):
        part = np.s_[..., head * size : (head + 1) * size]
        scores = q[part] @ k[part].transpose(0, 2, 1) / math.sqrt(size) + bias[..., head]
        out[part] = textbook_layers.softmax(np.where(together, scores, -np.inf)) @ v[part]
    return textbook_layers.dense(out, p['proj']).reshape(batch, *padded, channels)[:, :height, :width]


def merged(x, p):
    x = np.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    out = np.zeros((len(x), x.shape[1] // 2, x.shape[2] // 2, 4 * x.shape[3]))
    for i, j in itertools.product(range(out.shape[1]), range(out.shape[2])):
        corners = [(2 * i, 2 * j), (2 * i + 1, 2 * j), (2 * i, 2 * j + 1), (2 * i + 1, 2 * j + 1)]
        out[:, i, j] = np.concatenate([x[:, row, column] for row, column in corners], axis=-1)
    return textbook_layers.dense(textbook_layers.layer_norm(out, p['norm'], 1e-5), p['reduction'])


def network(p, images, *, patch_size, width, depths, heads, window_size, mlp_ratio):
    x = textbook_layers.layer_norm(
        textbook_layers.patches(np.float64(images), p['features_0_0'], patch_size), p['features_0_2'], 1e-5
    )
    for stage, depth in enumerate(depths):
        if stage:
            x = merged(x, p[f'features_{2 * stage}'])
        assert x.shape[-1] == width * 2**stage
        for index in range(depth):
            block = p[f'features_{2 * stage + 1}_{index}']
            shift = window_size // 2 if index % 2 else 0
            normed = textbook_layers.layer_norm(x, block['norm1'], 1e-5)
            x = x + attention(normed, block['attn'], heads[stage], window_size, shift)
            assert block['fc1']['kernel'].shape[1] == mlp_ratio * x.shape[-1]
            x = x + textbook_layers.perceptron(textbook_layers.layer_norm(x, block['norm2'], 1e-5), block)
    return textbook_layers.dense(textbook_layers.layer_norm(x, p['norm'], 1e-5).mean(axis=(1, 2)), p['head'])


def test_windows_divide_the_stages_of_the_form_for_small_images():
    module = models.MODELS.make('cifar_swin_t', num_classes=10)
    found = {place: x.shape for place, (_, x) in calls(module, swin.SwinBlock, 32).items()}
    blocks = {1: [(1, 16, 16, 96)] * 2, 3: [(1, 8, 8, 192)] * 2, 5: [(1, 4, 4, 384)] * 6}
    assert found == {f'features_{part}_{i}': shape for part, shapes in blocks.items() for i, shape in enumerate(shapes)}
    assert module.window_size == 4


@pytest.mark.parametrize(
    ('shape', 'options'),
    [
        ((12, 24, 3), {}),  # 6 x 12 positions, then 3 x 6: one window of rows, which is not shifted
        ((15, 22, 3), {}),  # 7 x 11, then 4 x 6: a row without patch, and padding before windows and merging
        ((5, 3, 1), {}),  # 2 x 1, then 1 x 1: less than a window
        ((11, 9, 3), {'window_size': 2, 'depths': (1, 3)}),
        ((12, 18, 3), {'patch_size': 3, 'window_size': 4, 'depths': (3,), 'heads': (2,)}),
    ],
)
def test_the_network_equals_the_textbook(shape, options):
    options = TINY | options
    module = swin.swin(5, **options)
    params, images = drawn(module, shape), images_of(shape)
    logits = jax.jit(lambda p, x: module.apply({'params': p}, x), compiler_options=O0)(params, images)
    np.testing.assert_allclose(logits, network(params, images, **options), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('size', [1, 2, 3, 7])
def test_the_table_of_biases_lists_differences_of_rows_then_of_columns(size):
    differences = list(itertools.product(range(1 - size, size), repeat=2))
    places = list(itertools.product(range(size), repeat=2))
    expected = [[differences.index((q[0] - k[0], q[1] - k[1])) for k in places] for q in places]
    np.testing.assert_array_equal(swin.relative_positions(size), expected)


@pytest.mark.parametrize(
    ('shape', 'shifts', 'size'), [((6, 9), (1, 1), 3), ((3, 6), (0, 1), 3), ((8, 4), (2, 0), 4), ((4, 6), (1, 1), 2)]
)
def test_the_mask_separates_positions_that_only_the_shift_brought_together(shape, shifts, size):
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), axis=-1)
    rolled = np.roll(places, [-s for s in shifts], (0, 1))
    found = swin.shift_mask(shape, shifts, size)
    windows = list(itertools.product(range(0, shape[0], size), range(0, shape[1], size)))
    assert found.shape == (len(windows), size**2, size**2)
    for window, (row, column) in enumerate(windows):
        inside = rolled[row : row + size, column : column + size].reshape(-1, 2)
        near = np.abs(inside[:, None] - inside[None]).max(axis=-1) < size
        np.testing.assert_array_equal(found[window], np.where(near, 0, -100))
    assert (found < 0).any()


def rates_of(module):
    """The rate of stochastic depth in each block."""
    return [depth.rate for depth, _ in calls(module, layers.StochasticDepth).values()]


def test_stochastic_depth_grows_from_block_to_block():
    module = swin.swin(5, stochastic_depth=0.3, **TINY)
    assert rates_of(module) == pytest.approx([0, 0.1, 0.2, 0.3])
    single = swin.swin(5, **TINY | {'depths': (1,), 'heads': (1,)}, stochastic_depth=0.3)
    assert rates_of(single) == [0]
    rates = {name: models.MODELS.make(name, num_classes=5).stochastic_depth for name in ('swin_t', 'swin_s', 'swin_b')}
    assert rates == {'swin_t': 0.2, 'swin_s': 0.3, 'swin_b': 0.5}


@pytest.mark.parametrize('option', ['dropout', 'stochastic_depth'])
def test_draws_are_made_in_training_alone_and_not_at_rate_zero(option):
    options = TINY | {'depths': (2,), 'heads': (1,), 'stochastic_depth': 0.0}
    silent, random = swin.swin(5, **options), swin.swin(5, **options | {option: 0.5})
    variables, images = {'params': drawn(silent, (8, 8, 3))}, images_of((8, 8, 3), 4)

    @functools.partial(jax.jit, compiler_options=O0)
    def run(variables, key):
        evaluated = [random.apply(variables, images), silent.apply(variables, images, train=True)]
        trained = random.apply(variables, images, train=True, rngs={'dropout': key})
        return silent.apply(variables, images), evaluated, trained

    results = [run(variables, jax.random.key(seed)) for seed in (0, 0, 1)]
    expected, evaluated, _ = results[0]
    trained = [result[2] for result in results]
    for logits in evaluated:
        np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(trained[0], trained[1])
    assert np.abs(trained[0] - trained[2]).max() > 1e-3
    assert np.abs(trained[0] - expected).max() > 1e-3


def test_each_branch_is_dropped_independently():
    block = swin.SwinBlock(1, 2, 0, 2, 0.0, 0.5)
    x = images_of((4, 4, 4), 32)
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=False))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes['params'])
    silent = jax.tree.map(np.zeros_like, params)
    first = params | {'fc2': silent['fc2']}  # the second branch gives 0
    second = params | {'attn': silent['attn']}
    rngs = {'dropout': jax.random.key(0)}

    @jax.jit
    def both(params):
        return block.apply({'params': params}, x, train=False), block.apply(
            {'params': params}, x, train=True, rngs=rngs
        )

    left_out = []
    for part in (first, second):
        full, out = map(np.asarray, both(part))
        gone = np.all(out == x, axis=(1, 2, 3))
        np.testing.assert_allclose(out[~gone], (2 * full - x)[~gone], rtol=1e-4, atol=1e-4)
        assert 4 < gone.sum() < 28
        left_out.append(gone)
    assert (left_out[0] != left_out[1]).any()


def test_bfloat16_computes_in_bfloat16_with_float32_parameters_and_logits():
    module = swin.swin(5, dtype=jnp.bfloat16, **TINY)
    params, images = drawn(module, (15, 22, 3)), images_of((15, 22, 3))
    textbook_layers.assert_rounded(module, params, images, network(params, images, **TINY))
    jaxpr = jax.make_jaxpr(lambda p: module.apply({'params': p}, images))(params).jaxpr
    products = [equation for equation in jaxpr.eqns if equation.primitive.name == 'dot_general']
    types = [{v.aval.dtype for v in equation.invars} for equation in products]
    # Six in each of four blocks, one that merges patches, and the head.
    assert types == [{jnp.dtype(jnp.bfloat16)}] * 25 + [{jnp.dtype(jnp.float32)}]


@pytest.mark.parametrize('shape', [(3, 8, 3), (8, 3, 3)])
def test_an_image_that_is_too_small_is_refused(shape):
    module = models.MODELS.make('swin_t', num_classes=5)
    message = f'{shape[0]} x {shape[1]} pixels is too small for this Swin transformer, which needs at least 4 rows'
    with pytest.raises(errors.InputError, match=message):
        models.abstract(module, shape, num_classes=5)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'depths': (2, 2)}, r'depths \(2, 2\) and heads \(3, 6, 12, 24\) need the same number of stages'),
        ({'depths': (), 'heads': ()}, r'depths \(\) and heads \(\) need'),
        ({'depths': (2, 0, 6, 2)}, r'depths\[1\] must be an integer of at least 1, got 0'),
        ({'heads': (3, 6, 0, 24)}, r'heads\[2\] must be an integer of at least 1, got 0'),
        ({'heads': (3, 6, 12, 25)}, r'heads \(3, 6, 12, 25\) must divide the channels of their stages, 96 and'),
        ({'width': 0}, 'width must be an integer of at least 1, got 0'),
        ({'patch_size': 0}, 'patch_size must be an integer of at least 1, got 0'),
        ({'window_size': -7}, 'window_size must be an integer of at least 1, got -7'),
        ({'mlp_ratio': 0}, 'mlp_ratio must be an integer of at least 1, got 0'),
        ({'dropout': 1.0}, r'dropout must be a finite number at least 0 and below 1, got 1.0'),
        ({'stochastic_depth': -0.2}, r'stochastic_depth must be a finite number at least 0 and below 1, got -0.2'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(errors.InputError, match=message):
        models.MODELS.make('swin', num_classes=5, **options)


def test_keys_of_published_files():
    module = swin.swin(5, **TINY)
    variables = models.abstract(module, (8, 8, 3), num_classes=5).variables
    places = [f'{stage}.blocks.{index}' for stage in range(2) for index in range(2)]
    block = ['norm1', 'norm2', 'attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2']
    common = [f'patch_embed.{part}.{kind}' for part in ('proj', 'norm') for kind in ('weight', 'bias')]
    common += [f'layers.{place}.{part}.{kind}' for place in places for part in block for kind in ('weight', 'bias')]
    common += [f'layers.{place}.attn.relative_position_bias_table' for place in places] + ['norm.weight', 'norm.bias']
    merging = ['downsample.norm.weight', 'downsample.norm.bias', 'downsample.reduction.weight']
    expected = {
        'microsoft': [*common, *(f'layers.0.{key}' for key in merging), 'head.weight', 'head.bias'],
        'timm': [*common, *(f'layers.1.{key}' for key in merging), 'head.fc.weight', 'head.fc.bias'],
    }
    for naming, keys in expected.items():
        slots = layout.slots(variables, layout.namings_of(module)[naming]).values()
        assert sorted(slot.key for slot in slots) == sorted(keys)
        assert {slot.pieces for slot in slots} == {1}

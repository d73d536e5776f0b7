import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.core import losses, numerics

# Powers of ten over the whole normal range of float32 (1.2e-38 to 3.4e38), both signs.
FLOATS = np.concatenate([sign * np.float32(10.0) ** np.arange(-37, 38) for sign in (1, -1)]).astype(np.float32)
DIRECTION = np.array([3.0, -4.0, 12.0, 84.0], np.float64)  # has norm 85
NOT_FINITE = [np.nan, np.inf, -np.inf]


def norm_float64(tree):
    return math.sqrt(sum(float(np.sum(np.asarray(leaf, np.float64) ** 2)) for leaf in jax.tree.leaves(tree)))


def test_safe_divide_is_division_over_the_float_range():
    quotient = jax.jit(numerics.safe_divide)(FLOATS[:, None], FLOATS[None, :])
    with np.errstate(over='ignore', under='ignore'):
        expected = FLOATS[:, None] / FLOATS[None, :]
    normal = np.abs(expected) > np.finfo(np.float32).tiny  # XLA flushes smaller ones to zero
    np.testing.assert_allclose(quotient[normal], expected[normal], rtol=3e-7)
    assert np.all(np.abs(quotient[~normal]) <= np.finfo(np.float32).tiny)


def test_safe_divide_by_zero_is_zero_and_otherwise_nan_and_infinity_remain():
    numerators = jnp.float32([[0.0], [1.0], [-3e38], [1e-37], [np.inf], [np.nan]])
    np.testing.assert_array_equal(numerics.safe_divide(numerators, jnp.float32([0.0, -0.0])), np.zeros((6, 2)))
    found = numerics.safe_divide(jnp.float32([np.nan, 1, np.inf, 1]), jnp.float32([2, np.nan, 2, np.inf]))
    np.testing.assert_array_equal(found, [np.nan, np.nan, np.inf, 0])


def test_safe_divide_gradients():
    # d(a/b)/da = 1/b and d(a/b)/db = -a/b^2; both finite, here 0, at b = 0.
    by_numerator, by_denominator = jax.vmap(jax.grad(numerics.safe_divide, argnums=(0, 1)))(
        jnp.array([3.0, 3.0]), jnp.array([4.0, 0.0])
    )
    np.testing.assert_allclose(by_numerator, [0.25, 0.0])
    np.testing.assert_allclose(by_denominator, [-3 / 16, 0.0])


@pytest.mark.parametrize('scale', [0.0, *(10.0 ** np.arange(-36, 37, 6)), 1e-37, 1e36])
def test_tree_norm_over_the_float_range(scale):
    x = (DIRECTION * scale).astype(np.float32)
    tree = {'a': x[:1], 'b': [x[1:3].reshape(2, 1), x[3]]}
    assert float(jax.jit(numerics.tree_norm)(tree)) == pytest.approx(norm_float64(tree), rel=3e-7)


def test_reductions_of_joined_arrays_equal_those_of_separate_ones(monkeypatch):
    generator = np.random.default_rng(0)
    shapes = {'large': (1 << 15, 2), 'a': 7, 'b': (3, 5)}
    tree = {name: jnp.asarray(generator.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert len(numerics._join_small(jax.tree.leaves(tree))) == 2
    assert float(numerics.tree_norm(tree)) == pytest.approx(norm_float64(tree), rel=1e-6)
    assert bool(numerics.all_finite(tree))
    for name, place in (('large', (9, 1)), ('b', (2, 4))):
        poisoned = {**tree, name: tree[name].at[place].set(jnp.inf)}
        assert not numerics.all_finite(poisoned)
        assert not np.isfinite(numerics.tree_norm(poisoned))
    assert bool(numerics.all_finite({'a': tree['a'], 'b': tree['b'].astype(jnp.bfloat16)}))


def test_tree_norm_of_leaves_of_very_different_sizes():
    tree = [jnp.full(4, 1e-30), jnp.full(3, 1e30), jnp.zeros(2), jnp.zeros((0, 3))]
    assert float(numerics.tree_norm(tree)) == pytest.approx(math.sqrt(3) * 1e30, rel=1e-6)
    assert 0 <= float(numerics.tree_norm([np.full(3, 1e-42, np.float32)])) < 1e-41  # subnormal


@pytest.mark.parametrize('empty', [{}, [], None, {'a': jnp.zeros((0, 3))}])
def test_reductions_of_an_empty_tree(empty):
    norm, finite = numerics.tree_norm(empty), numerics.all_finite(empty)
    assert (float(norm), norm.dtype) == (0, jnp.float32)
    assert float(numerics.tree_vdot(empty, empty)) == 0
    assert (bool(finite), finite.shape, finite.dtype) == (True, (), jnp.bool_)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_reductions_accumulate_low_precision_in_float32(dtype):
    # A bfloat16 sum of ones sticks at 256, and 300 * 300 is no float16.
    x = jnp.asarray(np.random.default_rng(0).normal(size=10_000), dtype)
    large, ones = jnp.full(10_000, 300, dtype), jnp.full(10_000, 1, dtype)
    for found, expected in (
        (numerics.tree_norm({'x': x}), norm_float64(x)),
        (numerics.tree_norm(large), 30_000),
        (numerics.batch_norm_l2(large[None])[0, 0], 30_000),
        (numerics.batch_mean_abs(large[None])[0, 0], 300),
        (numerics.tree_vdot(large, large), 9e8),
        (numerics.tree_vdot({'x': ones}, {'x': ones}), 10_000),
        (numerics.tree_vdot(ones, jnp.full(10_000, 0.001)), 10),
    ):
        assert found.dtype == jnp.float32
        assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('bad', NOT_FINITE)
def test_tree_norm_and_all_finite_see_every_leaf(bad):
    finite = {'a': jnp.array([3e38, -1e-45, 0]), 'b': [jnp.ones((2, 2), jnp.bfloat16), jnp.arange(3)]}
    assert bool(jax.jit(numerics.all_finite)(finite))
    first = finite | {'a': finite['a'].at[1].set(bad)}
    second = finite | {'b': [finite['b'][0].at[1, 1].set(bad), finite['b'][1]]}
    for tree in (first, second):
        assert not numerics.all_finite(tree)
        assert not np.isfinite(numerics.tree_norm(tree))
    assert np.isnan(numerics.tree_norm([np.array([np.nan, 1], np.float32)]))


@pytest.mark.parametrize('scale', [1e-30, 1e-3, 1.0, 1e30])
def test_tree_norm_gradient_is_the_unit_vector(scale):
    gradient = jax.grad(numerics.tree_norm)(jnp.asarray(DIRECTION * scale, jnp.float32))
    np.testing.assert_allclose(gradient, DIRECTION / 85, rtol=1e-5)


@pytest.mark.parametrize('norm', [numerics.tree_norm, lambda x: jnp.sum(numerics.batch_norm_l2(x))])
def test_norm_gradient_at_zero_is_finite(norm):
    np.testing.assert_array_equal(jax.grad(norm)(jnp.zeros((2, 3))), np.zeros((2, 3)))


def test_norm_hessian_is_the_projection_off_the_unit_vector():
    unit = DIRECTION / 85
    hessian = jax.hessian(numerics.tree_norm)(jnp.asarray(DIRECTION, jnp.float32))
    np.testing.assert_allclose(hessian, (np.eye(4) - np.outer(unit, unit)) / 85, atol=1e-7)


@pytest.mark.parametrize('shape', [(5,), (2, 3, 1)])
def test_batch_norm_l2_is_the_norm_of_each_example(shape):
    size = math.prod(shape)
    scales = np.float32(10.0) ** np.arange(-36, 37, 4)
    x = np.random.default_rng(0).uniform(-1, 1, (len(scales), size)).astype(np.float32) * scales[:, None]
    norm = jax.jit(numerics.batch_norm_l2)(x.reshape(-1, *shape))
    assert norm.shape == (len(scales), *(1 for _ in shape))
    np.testing.assert_allclose(norm.reshape(-1), np.linalg.norm(x.astype(np.float64), axis=1), rtol=1e-6)


def test_batch_norm_l2_and_its_gradient_keep_examples_apart():
    x = np.array([[0, 0], [3, 4], [np.nan, 1], [np.inf, 1], [6e30, 8e30]], np.float32)
    np.testing.assert_allclose(numerics.batch_norm_l2(x), [[0], [5], [np.nan], [np.inf], [1e31]])
    x = jnp.array([[0.0, 0.0], [3.0, 4.0], [3e-30, 4e-30]])
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(numerics.batch_norm_l2(x))))(x)
    np.testing.assert_allclose(gradient, [[0, 0], [0.6, 0.8], [0.6, 0.8]], rtol=1e-6)


def test_batch_mean_abs_is_the_l1_norm_over_the_size():
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)
    mean = numerics.batch_mean_abs(x)
    assert mean.shape == (3, 1, 1, 1)
    np.testing.assert_allclose(mean.reshape(-1), np.abs(x.reshape(3, -1)).sum(axis=1) / 32, rtol=1e-6)


def test_tree_vdot_is_the_inner_product():
    rng = np.random.default_rng(0)
    a, b = ({'x': rng.normal(size=(3, 4)), 'y': [rng.normal(size=5), rng.normal()]} for _ in range(2))
    expected = sum(np.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    narrow = [jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree) for tree in (a, b)]
    product = jax.jit(numerics.tree_vdot)(*narrow)
    assert (product.shape, product.dtype) == ((), jnp.float32)
    assert float(product) == pytest.approx(expected, rel=1e-6)
    with jax.enable_x64(True):
        wide = [jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree) for tree in (a, b)]
        assert float(numerics.tree_vdot(*wide)) == pytest.approx(expected, rel=1e-14)
    with pytest.raises(ValueError, match=r'structure|key'):
        numerics.tree_vdot({'a': jnp.ones(2)}, {'b': jnp.ones(2)})


def test_tree_vdot_of_leaves_of_several_types():
    with jax.enable_x64(True):
        a = {'x': jnp.full(3, 2.0, jnp.bfloat16), 'y': jnp.full(2, 1 / 3, jnp.float64)}
        b = {'x': jnp.full(3, 3.0, jnp.float32), 'y': jnp.full(2, 3.0, jnp.float32)}
        product = numerics.tree_vdot(a, b)
        assert product.dtype == jnp.float64
        assert float(product) == pytest.approx(20, rel=1e-14)
        assert numerics.tree_vdot({'x': a['x']}, {'x': b['x']}).dtype == jnp.float32


@pytest.mark.parametrize(('dtype', 'wide'), [('bfloat16', 'float32'), ('float32', 'float32'), ('float64', 'float64')])
def test_wide_is_float32_or_better(dtype, wide):
    with jax.enable_x64(True):
        assert numerics.wide_dtype(dtype) == wide
        assert numerics.wide(jnp.ones(2, dtype)).dtype == wide


def textbook(logits, labels):
    z = np.asarray(logits, np.float64)
    return [-(row[y] - row.max() - np.log(np.sum(np.exp(row - row.max())))) for row, y in zip(z, labels, strict=True)]


@pytest.mark.parametrize('scale', [1e-3, 1.0, 30.0, 1e4, 1e30])
def test_cross_entropy_equals_the_textbook(scale):
    logits = np.random.default_rng(0).normal(size=(6, 10)) * scale
    labels = np.arange(6)
    loss = losses.cross_entropy(jnp.asarray(logits, jnp.float32), labels)
    np.testing.assert_allclose(loss, textbook(logits.astype(np.float32), labels), rtol=1e-5, atol=1e-5)


def test_cross_entropy_of_bfloat16_logits_is_computed_in_float32():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 10)), jnp.bfloat16)
    loss = losses.cross_entropy(logits, jnp.arange(4))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, textbook(logits, np.arange(4)), rtol=1e-6)


def test_gradient_is_softmax_minus_one_hot():
    logits = np.random.default_rng(0).normal(size=(3, 5))
    labels = np.array([4, 0, 2])
    gradient = jax.grad(lambda z: losses.cross_entropy(z, labels).sum())(jnp.asarray(logits, jnp.float32))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, softmax - np.eye(5)[labels], atol=1e-6)

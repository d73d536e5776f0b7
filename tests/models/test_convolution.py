import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from shapes import convolutions, is_plain

from rfn_jax.core import sharding
from rfn_jax.models import convolution

PLAIN = ('NHWC', 'HWIO', 'NHWC')


def arrays(x_shape, w_shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=x_shape), jnp.float32), jnp.asarray(rng.normal(size=w_shape), jnp.float32)


def ours(x, w, strides, padding, **options):
    return convolution.conv_general_dilated(x, w, strides, padding, dimension_numbers=PLAIN, **options)


def native(x, w, strides, padding, **options):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=PLAIN, **options)


def textbook(x, w, strides, padding):
    """out[n, i, j, d] = sum over a, b, c of padded[n, i s + a, j t + b, c] w[a, b, c, d], in float64."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *padding, (0, 0)))
    w = np.asarray(w, np.float64)
    rows, columns = ((x.shape[1 + i] - w.shape[i]) // strides[i] + 1 for i in range(2))
    out = np.zeros((x.shape[0], rows, columns, w.shape[3]))
    for i in range(rows):
        for j in range(columns):
            top, left = i * strides[0], j * strides[1]
            window = x[:, top : top + w.shape[0], left : left + w.shape[1]]
            out[:, i, j] = np.einsum('nabc,abcd->nd', window, w)
    return out


@functools.partial(jax.jit, static_argnums=(2, 3), compiler_options={'xla_backend_optimization_level': 0})
def values_and_gradients(x, w, strides, padding):
    """(value, dx, dw) of our convolution, and of the native one; in one program to save compilations."""
    results = []
    for conv in (ours, native):
        out, vjp = jax.vjp(lambda x, w, conv=conv: conv(x, w, strides, padding), x, w)
        cotangent = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape).astype(out.dtype)
        results.append((out, *vjp(cotangent)))
    return results


def paddings(kernel):
    symmetric = [((p, p), (min(p, kernel[1] // 2),) * 2) for p in range(kernel[0] // 2 + 1)]
    asymmetric = [((0, kernel[0] - 1), (kernel[1] - 1, 0))] if max(kernel) > 1 else []
    return symmetric + asymmetric


@pytest.mark.parametrize(
    ('kernel', 'strides', 'padding'),
    [
        (kernel, strides, padding)
        for kernel in [(1, 1), (3, 3), (5, 5), (2, 3), (3, 1)]
        for strides in [(1, 1), (2, 2), (3, 3), (1, 2)]
        for padding in paddings(kernel)
        if strides in [(1, 1), (2, 2)] or kernel == (3, 3) or (kernel == (1, 1) and strides == (3, 3))
    ],
)
@pytest.mark.parametrize('size', [(7, 8)])  # one odd, one even
def test_values_and_gradients_equal_the_native_ones(kernel, strides, padding, size):
    x, w = arrays((2, *size, 3), (*kernel, 3, 4))
    mine, theirs = values_and_gradients(x, w, strides, padding)
    np.testing.assert_allclose(mine[0], textbook(x, w, strides, padding), atol=1e-4)
    for name, a, b in zip(('value', 'dx', 'dw'), mine, theirs, strict=True):
        assert a.shape == b.shape, name
        assert a.dtype == b.dtype, name
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize('size', [(6, 6), (5, 8)])
@pytest.mark.parametrize('strides', [(2, 2), (3, 3)])
def test_image_sizes_that_leave_rows_uncovered(size, strides):
    for kernel, pad in (((1, 1), 0), ((3, 3), 1)):
        x, w = arrays((2, *size, 2), (*kernel, 2, 3))
        padding = ((pad, pad), (pad, pad))
        mine, theirs = values_and_gradients(x, w, strides, padding)
        for name, a, b in zip(('value', 'dx', 'dw'), mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(('groups', 'channels', 'features'), [(4, 4, 4), (4, 4, 8), (2, 6, 4)])
@pytest.mark.parametrize(
    ('kernel', 'strides', 'size'), [(3, 1, (7, 8)), (3, 2, (6, 5)), (5, 2, (7, 8)), (1, 3, (6, 8))]
)
def test_groups(groups, channels, features, kernel, strides, size):
    x, w = arrays((2, *size, channels), (kernel, kernel, channels // groups, features))
    options = {'feature_group_count': groups}
    padding = ((kernel // 2, kernel // 2),) * 2

    @functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
    def gradients(x, w):
        results = []
        for conv in (ours, native):
            out, vjp = jax.vjp(lambda x, w, conv=conv: conv(x, w, (strides, strides), padding, **options), x, w)
            results.append((out, *vjp(jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))))
        return results

    for name, a, b in zip(('value', 'dx', 'dw'), *gradients(x, w), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5, err_msg=name)


def test_the_gradient_of_the_kernel_of_a_grouped_convolution_is_plain():
    x, w = arrays((2, 8, 8, 4), (3, 3, 1, 4))

    def gradient(conv):
        def loss(w):
            return conv(x, w, (2, 2), ((1, 1), (1, 1)), feature_group_count=4).sum()

        return [is_plain(equation) for equation in convolutions(jax.make_jaxpr(jax.grad(loss))(w).jaxpr)]

    assert gradient(native) == [True, False]
    # Forward, then in the backward pass: again for the transposed one of the images, which stays XLA's, and the kernel's.
    assert gradient(ours) == [True, True, False, True]


def test_the_gradients_of_plain_convolutions_are_plain_convolutions():
    # What XLA:CPU needs for its fast path inside loops; JAX's own rule does not give it.
    x, w = arrays((2, 8, 8, 3), (3, 3, 3, 4))

    def gradient(conv):
        jaxpr = jax.make_jaxpr(jax.grad(lambda x, w: conv(x, w, (2, 2), ((1, 1), (1, 1))).sum(), (0, 1)))(x, w)
        return [is_plain(equation) for equation in convolutions(jaxpr.jaxpr)]

    assert gradient(ours)
    assert all(gradient(ours))
    assert not all(gradient(native))


@pytest.mark.parametrize('strides', [(1, 1), (2, 2)])
def test_gradients_inside_a_loop(strides):
    x, w = arrays((2, 8, 7, 3), (3, 3, 3, 4))
    padding = ((1, 1), (1, 1))

    def step(conv, carry):
        gradients = jax.grad(lambda x, w: jnp.sum(jnp.tanh(conv(x, w, strides, padding))), (0, 1))(*carry)
        return jax.tree.map(lambda a, g: a + 0.1 * jnp.sign(g) + 0.01 * g, carry, gradients)

    looped = jax.jit(lambda carry: lax.fori_loop(0, 4, lambda _, carry: step(ours, carry), carry))((x, w))
    expected = (x, w)
    for _ in range(4):
        expected = jax.jit(functools.partial(step, native))(expected)
    for a, b in zip(looped, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_hessian_vector_products():
    x, w = arrays((2, 7, 8, 3), (3, 3, 3, 4))
    direction = jnp.cos(jnp.arange(w.size, dtype=jnp.float32)).reshape(w.shape)

    @functools.partial(jax.jit, static_argnums=0)
    def hvp(conv, w):
        def loss(w):
            return jnp.sum(jnp.tanh(conv(x, w, (2, 2), ((1, 1), (1, 1)))))

        forward_over_reverse = jax.jvp(jax.grad(loss), (w,), (direction,))[1]
        reverse_over_reverse = jax.grad(lambda w: jnp.vdot(jax.grad(loss)(w), direction))(w)
        return forward_over_reverse, reverse_over_reverse

    expected = hvp(native, w)[0]
    assert float(jnp.max(jnp.abs(expected))) > 0.1
    for result in hvp(ours, w):
        np.testing.assert_allclose(result, expected, atol=1e-4)


def test_vmap_over_kernels():
    x, _ = arrays((2, 5, 5, 2), (3, 3, 2, 3))
    kernels = jnp.stack([arrays((1,), (3, 3, 2, 3), seed)[1] for seed in range(3)])

    def gradient(conv):
        return jax.vmap(jax.grad(lambda w: jnp.sum(jnp.tanh(conv(x, w, (1, 1), ((1, 1), (1, 1)))))))(kernels)

    np.testing.assert_allclose(gradient(ours), gradient(native), atol=1e-4)


def test_bfloat16_gradients_keep_their_type():
    x, w = (array.astype(jnp.bfloat16) for array in arrays((2, 6, 6, 3), (3, 3, 3, 4)))
    mine, theirs = values_and_gradients(x, w, (1, 1), ((1, 1), (1, 1)))
    for a, b in zip(mine, theirs, strict=True):
        assert a.dtype == b.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=0.02, atol=0.1)


@pytest.mark.parametrize(
    ('x_shape', 'w_shape', 'strides', 'padding', 'options'),
    [
        ((2, 6, 6, 3), (3, 3, 3, 4), (1, 1), ((1, 1), (1, 1)), {'batch_group_count': 2}),
        ((2, 8, 8, 3), (3, 3, 3, 4), (1, 1), ((1, 1), (1, 1)), {'rhs_dilation': (2, 2)}),
        ((2, 4, 4, 3), (3, 3, 3, 4), (1, 1), ((1, 1), (1, 1)), {'lhs_dilation': (2, 2)}),
        ((2, 6, 6, 3), (3, 3, 3, 4), (2, 2), 'SAME', {}),
        ((2, 6, 6, 3), (3, 3, 3, 4), (1, 1), 'VALID', {}),
        ((2, 6, 6, 3), (3, 3, 3, 4), (1, 1), ((3, 3), (1, 1)), {}),
        ((2, 6, 6, 3), (3, 3, 3, 4), (1, 1), ((-1, 0), (0, -1)), {}),
        ((2, 6, 6, 3), (3, 3, 3, 4), (1, 1), ((1, 1), (1, 1)), {'precision': 'highest'}),
        ((2, 6, 3), (3, 3, 4), (1,), ((1, 1),), {'dimension_numbers': ('NHC', 'HIO', 'NHC')}),
        ((2, 3, 6, 6), (4, 3, 3, 3), (1, 1), ((1, 1), (1, 1)), {'dimension_numbers': ('NCHW', 'OIHW', 'NCHW')}),
        ((2, 3, 6, 6), (4, 3, 3, 3), (1, 1), ((1, 1), (1, 1)), {'dimension_numbers': None}),
    ],
    ids=lambda value: str(value) if isinstance(value, (dict, str)) else '',
)
def test_other_convolutions_are_native(x_shape, w_shape, strides, padding, options):
    x, w = arrays(x_shape, w_shape)
    options = {'dimension_numbers': PLAIN} | options

    @functools.partial(jax.jit, static_argnums=0)
    def run(conv, x, w):
        out, vjp = jax.vjp(lambda x, w: conv(x, w, strides, padding, **options), x, w)
        return out, *vjp(jnp.cos(out))

    mine = run(convolution.conv_general_dilated, x, w)
    for a, b in zip(mine, run(lax.conv_general_dilated, x, w), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)


def test_as_the_hook_of_flax():
    x, _ = arrays((2, 8, 8, 3), (1,))

    def module(**hook):
        return nn.Conv(4, (3, 3), strides=2, padding=[(1, 1), (1, 1)], **hook)

    hooked = module(conv_general_dilated=convolution.conv_general_dilated)
    variables = hooked.init(jax.random.key(0), x)

    def gradient(layer):
        return jax.grad(lambda v: jnp.sum(jnp.tanh(layer.apply(v, x))))

    for a, b in zip(*(jax.tree.leaves(gradient(layer)(variables)) for layer in (hooked, module())), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert all(is_plain(e) for e in convolutions(jax.make_jaxpr(gradient(hooked))(variables).jaxpr))


def test_a_batch_sharded_over_eight_devices():
    mesh = sharding.data_mesh()
    x, w = arrays((16, 6, 6, 3), (3, 3, 3, 4))
    gradients = jax.jit(jax.grad(lambda x, w: jnp.sum(jnp.tanh(ours(x, w, (1, 1), ((1, 1), (1, 1))))), (0, 1)))
    expected = gradients(x, w)
    cut = gradients(sharding.shard_batch(x, mesh), sharding.replicate(w, mesh))
    assert cut[1].sharding.is_fully_replicated
    for a, b in zip(cut, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)

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
O0 = {'xla_backend_optimization_level': 0}
ONE = ((1, 1), (1, 1))  # padding


def arrays(x_shape, w_shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=x_shape), jnp.float32), jnp.asarray(rng.normal(size=w_shape), jnp.float32)


def ours(x, w, strides=(1, 1), padding=ONE, **options):
    return convolution.conv_general_dilated(x, w, strides, padding, **{'dimension_numbers': PLAIN} | options)


def native(x, w, strides=(1, 1), padding=ONE, **options):
    return lax.conv_general_dilated(x, w, strides, padding, **{'dimension_numbers': PLAIN} | options)


def textbook(x, w, strides, padding):
    """out[n, i, j, d] = sum over a, b, c of padded[n, i s + a, j t + b, c] w[a, b, c, d], in float64."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *padding, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[:2], axis=(1, 2))
    return np.einsum('nijcab,abcd->nijd', windows[:, :: strides[0], :: strides[1]], np.asarray(w, np.float64))


def assert_equals_native(x, w, strides=(1, 1), padding=ONE, *, atol=2e-5, rtol=1e-5, **options):
    """Compares the value and both gradients, from one program to save compilations, and returns the value."""

    @functools.partial(jax.jit, compiler_options=O0)
    def both(x, w):
        results = []
        for conv in (ours, native):
            out, vjp = jax.vjp(lambda x, w, conv=conv: conv(x, w, strides, padding, **options), x, w)
            cotangent = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape).astype(out.dtype)
            results.append((out, *vjp(cotangent)))
        return results

    mine, theirs = both(x, w)
    for name, a, b in zip(('value', 'dx', 'dw'), mine, theirs, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        np.testing.assert_allclose(np.float32(a), np.float32(b), atol=atol, rtol=rtol, err_msg=name)
    return mine[0]


def paddings(kernel):
    symmetric = [((p, p), (min(p, kernel[1] // 2),) * 2) for p in range(kernel[0] // 2 + 1)]
    asymmetric = [((0, kernel[0] - 1), (kernel[1] - 1, 0))] if max(kernel) > 1 else []
    return symmetric + asymmetric


@pytest.mark.parametrize(
    ('kernel', 'strides', 'padding', 'size'),
    [
        *(
            (kernel, strides, padding, (7, 8))  # one odd, one even
            for kernel in [(1, 1), (3, 3), (5, 5), (2, 3), (3, 1)]
            for strides in [(1, 1), (2, 2), (3, 3), (1, 2)]
            for padding in paddings(kernel)
            if strides in [(1, 1), (2, 2)] or kernel == (3, 3) or (kernel == (1, 1) and strides == (3, 3))
        ),
        # Rows that no window covers.
        *(
            ((2 * pad + 1,) * 2, strides, ((pad, pad),) * 2, size)
            for pad in (0, 1)
            for strides in [(2, 2), (3, 3)]
            for size in [(6, 6), (5, 8)]
        ),
    ],
)
def test_values_and_gradients_equal_the_native_ones(kernel, strides, padding, size):
    x, w = arrays((2, *size, 3), (*kernel, 3, 4))
    value = assert_equals_native(x, w, strides, padding)
    np.testing.assert_allclose(value, textbook(x, w, strides, padding), atol=1e-4)


@pytest.mark.parametrize(('groups', 'channels', 'features'), [(4, 4, 4), (4, 4, 8), (2, 6, 4)])
@pytest.mark.parametrize(
    ('kernel', 'strides', 'size'), [(3, 1, (7, 8)), (3, 2, (6, 5)), (5, 2, (7, 8)), (1, 3, (6, 8))]
)
def test_groups(groups, channels, features, kernel, strides, size):
    x, w = arrays((2, *size, channels), (kernel, kernel, channels // groups, features))
    assert_equals_native(x, w, (strides,) * 2, ((kernel // 2,) * 2,) * 2, feature_group_count=groups)


def test_bfloat16_gradients_keep_their_type():
    x, w = (array.astype(jnp.bfloat16) for array in arrays((2, 6, 6, 3), (3, 3, 3, 4)))
    assert assert_equals_native(x, w, rtol=0.02, atol=0.1).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ('x_shape', 'w_shape', 'strides', 'padding', 'options'),
    [
        ((2, 6, 6, 3), (3, 3, 3, 4), (1, 1), ONE, {'batch_group_count': 2}),
        ((2, 8, 8, 3), (3, 3, 3, 4), (1, 1), ONE, {'rhs_dilation': (2, 2)}),
        ((2, 4, 4, 3), (3, 3, 3, 4), (1, 1), ONE, {'lhs_dilation': (2, 2)}),
        ((2, 6, 6, 3), (3, 3, 3, 4), (2, 2), 'SAME', {}),
        ((2, 6, 6, 3), (3, 3, 3, 4), (1, 1), 'VALID', {}),
        ((2, 6, 6, 3), (3, 3, 3, 4), (1, 1), ((3, 3), (1, 1)), {}),
        ((2, 6, 6, 3), (3, 3, 3, 4), (1, 1), ((-1, 0), (0, -1)), {}),
        ((2, 6, 6, 3), (3, 3, 3, 4), (1, 1), ONE, {'precision': 'highest'}),
        ((2, 6, 3), (3, 3, 4), (1,), ((1, 1),), {'dimension_numbers': ('NHC', 'HIO', 'NHC')}),
        ((2, 3, 6, 6), (4, 3, 3, 3), (1, 1), ONE, {'dimension_numbers': ('NCHW', 'OIHW', 'NCHW')}),
        ((2, 3, 6, 6), (4, 3, 3, 3), (1, 1), ONE, {'dimension_numbers': None}),
    ],
    ids=lambda value: str(value) if isinstance(value, (dict, str)) else '',
)
def test_other_convolutions_are_native(x_shape, w_shape, strides, padding, options):
    assert_equals_native(*arrays(x_shape, w_shape), strides, padding, **options)


def test_the_gradients_of_plain_convolutions_are_plain_convolutions():
    # What XLA:CPU needs for its fast path inside loops; JAX's own rule does not give it.
    x, w = arrays((2, 8, 8, 3), (3, 3, 3, 4))

    def gradient(conv, x, w, argnums, **options):
        loss = jax.grad(lambda x, w: conv(x, w, (2, 2), **options).sum(), argnums)
        return [is_plain(equation) for equation in convolutions(loss, x, w)]

    assert gradient(ours, x, w, (0, 1)) == [True] * 3
    assert not all(gradient(native, x, w, (0, 1)))
    # Of a grouped one, forward, then in the backward pass: again for the transposed one of the images, which stays XLA's, and
    # the kernel's.
    x, w = arrays((2, 8, 8, 4), (3, 3, 1, 4))
    assert gradient(native, x, w, 1, feature_group_count=4) == [True, False]
    assert gradient(ours, x, w, 1, feature_group_count=4) == [True, True, False, True]


def steps_in_a_loop(conv, strides):
    def step(_, carry):
        gradients = jax.grad(lambda x, w: jnp.sum(jnp.tanh(conv(x, w, strides))), (0, 1))(*carry)
        return jax.tree.map(lambda a, g: a + 0.1 * jnp.sign(g) + 0.01 * g, carry, gradients)

    return lax.fori_loop(0, 4, step, arrays((2, 8, 7, 3), (3, 3, 3, 4)))


def hessian_vector_products(conv, strides):
    """Forward over reverse, and reverse over reverse."""
    x, w = arrays((2, 7, 8, 3), (3, 3, 3, 4))
    direction = jnp.cos(jnp.arange(w.size, dtype=jnp.float32)).reshape(w.shape)
    gradient = jax.grad(lambda w: jnp.sum(jnp.tanh(conv(x, w, strides))))
    return jax.jvp(gradient, (w,), (direction,))[1], jax.grad(lambda w: jnp.vdot(gradient(w), direction))(w)


def gradients_of_many_kernels(conv, strides):
    x, _ = arrays((2, 5, 5, 2), (3, 3, 2, 3))
    kernels = jnp.stack([arrays((1,), (3, 3, 2, 3), seed)[1] for seed in range(3)])
    return jax.vmap(jax.grad(lambda w: jnp.sum(jnp.tanh(conv(x, w, strides)))))(kernels)


@pytest.mark.parametrize(
    ('computed', 'strides'),
    [
        (steps_in_a_loop, (1, 1)),
        (steps_in_a_loop, (2, 2)),
        (hessian_vector_products, (2, 2)),
        (gradients_of_many_kernels, (1, 1)),
    ],
)
def test_loops_second_derivatives_and_vmap(computed, strides):
    found, expected = (
        jax.tree.leaves(jax.jit(computed, static_argnums=(0, 1))(conv, strides)) for conv in (ours, native)
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
        assert float(jnp.max(jnp.abs(b))) > 0.1


def test_as_the_hook_of_flax():
    x, _ = arrays((2, 8, 8, 3), (1,))
    module = functools.partial(nn.Conv, 4, (3, 3), strides=2, padding=[(1, 1), (1, 1)])
    hooked = module(conv_general_dilated=convolution.conv_general_dilated)
    variables = hooked.init(jax.random.key(0), x)

    def gradient(layer):
        return jax.jit(jax.grad(lambda v: jnp.sum(jnp.tanh(layer.apply(v, x)))))

    for a, b in zip(*(jax.tree.leaves(gradient(layer)(variables)) for layer in (hooked, module())), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert all(is_plain(equation) for equation in convolutions(gradient(hooked), variables))


def test_a_batch_sharded_over_eight_devices():
    mesh = sharding.data_mesh()
    x, w = arrays((16, 6, 6, 3), (3, 3, 3, 4))
    gradients = jax.jit(jax.grad(lambda x, w: jnp.sum(jnp.tanh(ours(x, w))), (0, 1)))
    expected = gradients(x, w)
    cut = gradients(sharding.shard_batch(x, mesh), sharding.replicate(w, mesh))
    assert cut[1].sharding.is_fully_replicated
    for a, b in zip(cut, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)

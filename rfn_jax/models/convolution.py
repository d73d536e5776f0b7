"""The convolution that all models use: XLA's own, with gradients that stay fast inside loops on the CPU.

Attacks and multi-step minimizers loop over gradients. On XLA:CPU, however, the gradient of a convolution inside `lax.scan`,
`fori_loop`, `while_loop` or `cond` takes a slow path, 8 to 46 times slower than outside
(https://github.com/jax-ml/jax/issues/12868), because of the dimension numbers that JAX's transpose rule produces. The same
gradients, written as ordinary NHWC/HWIO convolutions with explicit transposes, take the fast path.

They are defined by a `custom_vjp`, so on the CPU plain forward-mode differentiation (`jax.jvp`) of a model raises an error;
Hessian-vector products computed as the `jvp` of a `grad` work. Other backends use XLA's gradients.

Axes: `N` batch, `H W` rows and columns, `C` input channels, `D` output channels.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

NHWC = ('NHWC', 'HWIO', 'NHWC')


def conv_general_dilated(
    lhs,
    rhs,
    window_strides,
    padding,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    feature_group_count=1,
    batch_group_count=1,
    precision=None,
    preferred_element_type=None,
):
    """`jax.lax.conv_general_dilated`, for the argument `conv_general_dilated` of `flax.linen.Conv`.

    On the CPU, two-dimensional NHWC convolutions with explicit padding and no dilation get gradients that are fast inside
    loops and equal XLA's. All other calls, and all calls on other backends, are passed to XLA unchanged.
    """
    plain = (
        jax.default_backend() == 'cpu'
        and lhs.ndim == 4
        and not isinstance(padding, str)
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and batch_group_count == 1
        and precision is None
        and preferred_element_type is None
        and (dimension_numbers is None or lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) == _SPEC)
        and all(k > p for k, pads in zip(rhs.shape, padding, strict=False) for p in pads)
    )
    if plain and dimension_numbers is not None:
        return _conv(lhs, rhs, tuple(window_strides), tuple(map(tuple, padding)), feature_group_count)
    rest = (dimension_numbers, feature_group_count, batch_group_count, precision, preferred_element_type)
    return lax.conv_general_dilated(lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, *rest)


_SPEC = lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), NHWC)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x: jax.Array, w: jax.Array, strides, padding, groups) -> jax.Array:
    """Convolution of x `[N, H, W, C]` with w `[h, w, C / groups, D]`; padding is ((top, bottom), (left, right))."""
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=NHWC, feature_group_count=groups)


def _conv_forward(x, w, strides, padding, groups):
    # This does not call _conv, because forward-mode derivatives of a gradient (Hessian-vector products) pass through here.
    y = lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=NHWC, feature_group_count=groups)
    return y, (x, w)


def _conv_backward(strides, padding, groups, residuals, g):
    x, w = residuals
    kernel = w.shape[:2]
    # Rows (columns) at the end that no window covers: their gradient is zero, and they do not contribute to the kernel's.
    uncovered = [
        size + lo + hi - k - (out - 1) * stride
        for size, k, out, stride, (lo, hi) in zip(x.shape[1:3], kernel, g.shape[1:3], strides, padding, strict=True)
    ]
    if groups > 1:  # in this case XLA's gradient with respect to the images is not slow
        _, transposed = jax.vjp(lambda x: _conv_forward(x, w, strides, padding, groups)[0], x)
        (dx,) = transposed(g)
    else:
        dx = lax.conv_general_dilated(
            g,
            jnp.flip(w, (0, 1)).transpose(0, 1, 3, 2),
            (1, 1),
            [(k - 1 - lo, k - 1 - hi + e) for k, (lo, hi), e in zip(kernel, padding, uncovered, strict=True)],
            lhs_dilation=strides,
            dimension_numbers=NHWC,
        )
    batch, height, width, _ = x.shape
    dw = lax.conv_general_dilated(
        x.reshape(batch, height, width, groups, -1).transpose(4, 1, 2, 3, 0).reshape(-1, height, width, groups * batch),
        g.transpose(1, 2, 0, 3),
        (1, 1),
        [(lo, hi - e) for (lo, hi), e in zip(padding, uncovered, strict=True)],
        rhs_dilation=strides,
        dimension_numbers=NHWC,
        feature_group_count=groups,
    ).transpose(1, 2, 0, 3)
    return dx.astype(x.dtype), dw.astype(w.dtype)


_conv.defvjp(_conv_forward, _conv_backward)

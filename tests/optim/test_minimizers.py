import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfn_jax import optim
from rfn_jax.core import errors
from rfn_jax.optim import minimizers

A = np.array([[3.0, 1.0], [1.0, 2.0]])
B = np.array([1.0, -2.0])


def loss(w):
    return w @ jnp.asarray(A, w.dtype) @ w / 2 - w @ jnp.asarray(B, w.dtype)


def torch_sgd(gradient, w, *, lr_of, momentum, weight_decay, steps):
    """torch.optim.SGD(dampening=0, nesterov=False), line by line from its documentation."""
    buffer = None
    for t in range(steps):
        g = gradient(w)
        g = g + weight_decay * w
        if momentum != 0:
            buffer = g if buffer is None else momentum * buffer + g
            g = buffer
        w = w - lr_of(t) * g
    return w


def run(tx, steps):
    w = jnp.asarray([20.0, -9.0])
    state = tx.init(w)
    for _ in range(steps):
        updates, state = tx.update(jax.grad(loss)(w), state, w, grad_fn=jax.grad(loss))
        w = optax.apply_updates(w, updates)
    return w


@pytest.mark.parametrize('momentum', [0.0, 0.9])
@pytest.mark.parametrize('weight_decay', [0.0, 0.05])
@pytest.mark.parametrize('schedule', [False, True])
@pytest.mark.parametrize('rho', [None, 0.4])
def test_momentum_sgd_is_the_sgd_of_pytorch(momentum, weight_decay, schedule, rho):
    def gradient(w):
        return A @ w - B

    def sam_gradient(w):
        g = gradient(w)
        return gradient(w + rho * g / np.linalg.norm(g))

    boundaries = optax.piecewise_constant_schedule(0.1, {5: 0.1})
    tx = optax.chain(
        minimizers.MINIMIZERS.make('sgd') if rho is None else minimizers.MINIMIZERS.make('rfn_sam', rho=rho),
        minimizers.momentum_sgd(boundaries if schedule else 0.1, momentum=momentum, weight_decay=weight_decay),
    )
    expected = torch_sgd(
        gradient if rho is None else sam_gradient,
        np.array([20.0, -9.0]),
        # The buffer accumulates gradients, not steps, so that a lower rate takes effect at once.
        lr_of=lambda t: 0.01 if schedule and t >= 5 else 0.1,
        momentum=momentum,
        weight_decay=weight_decay,
        steps=12,
    )
    np.testing.assert_allclose(run(tx, 12), expected, rtol=2e-6, atol=2e-6)


def test_the_table_of_minimizers():
    assert list(minimizers.MINIMIZERS) == [
        'asam', 'esam', 'friendly_sam', 'gsam', 'looksam', 'random_sam', 'rfn_asam', 'rfn_esam', 'rfn_friendly_sam',
        'rfn_gsam', 'rfn_looksam', 'rfn_sam', 'sam', 'sgd',
    ]  # fmt: skip
    for name in minimizers.MINIMIZERS:
        assert name == 'sgd' or minimizers.MINIMIZERS[name] is getattr(optim, name)
    with pytest.raises(errors.InputError, match="unknown minimizer 'rfn_sm'; did you mean 'rfn_sam'"):
        minimizers.MINIMIZERS.make('rfn_sm')
    with pytest.raises(errors.InputError, match="unknown option of minimizer 'sgd': 'rho'"):
        minimizers.MINIMIZERS.make('sgd', rho=0.1)
    with pytest.raises(errors.InputError, match="sigma of minimizer 'friendly_sam' must be float, got '1'"):
        minimizers.MINIMIZERS.make('friendly_sam', sigma='1')
    assert minimizers.MINIMIZERS.make('esam', rho=1, beta=1, gamma=1, seed=0, mask='no_biases')


def test_plain_sgd_takes_the_arguments_of_the_others():
    w = jnp.asarray([20.0, -9.0])
    tx = optax.chain(minimizers.sgd(), minimizers.momentum_sgd(0.1, momentum=0.0, weight_decay=0.0))
    updates, _ = tx.update(jax.grad(loss)(w), tx.init(w), w, grad_fn=None, losses_fn=None)
    np.testing.assert_allclose(updates, -0.1 * (A @ np.asarray(w) - B), rtol=1e-6)


@pytest.mark.parametrize('momentum', [1, 1.5, -0.1, float('nan')])
def test_a_bad_momentum(momentum):
    with pytest.raises(
        errors.InputError, match=rf'momentum must be a finite number at least 0 and below 1, got {momentum}'
    ):
        minimizers.momentum_sgd(0.1, momentum=momentum, weight_decay=0)


@pytest.mark.parametrize('weight_decay', [-1e-4, float('nan')])
def test_a_bad_weight_decay(weight_decay):
    with pytest.raises(errors.InputError, match=f'weight_decay must be a finite number at least 0, got {weight_decay}'):
        minimizers.momentum_sgd(0.1, momentum=0.9, weight_decay=weight_decay)

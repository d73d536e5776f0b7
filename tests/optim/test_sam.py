import doctest
import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfn_jax

# The problem: logistic regression on a hidden tanh layer, with a hand-written gradient in float64.
#   h = tanh(x W + b),  z = h v,  L = mean log(1 + exp(-y z))
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(32, 5))
Y = np.where(_RNG.random(32) < 0.5, -1.0, 1.0)
START = {'W': _RNG.normal(size=(5, 4)) / 2, 'b': _RNG.normal(size=4) / 2, 'v': _RNG.normal(size=4) / 2}
RHO, LR, MOMENTUM, DECAY = 0.4, 0.1, 0.9, 5e-4


def loss(params, x=None, y=None):
    x, y = (X, Y) if x is None else (x, y)
    z = jnp.tanh(jnp.asarray(x, params['W'].dtype) @ params['W'] + params['b']) @ params['v']
    return jnp.mean(jnp.logaddexp(0, -jnp.asarray(y, z.dtype) * z))


def gradient(w, x=X, y=Y):
    """The gradient of `loss` in NumPy."""
    h = np.tanh(x @ w['W'] + w['b'])
    dz = -y / (1 + np.exp(y * (h @ w['v']))) / len(x)
    da = dz[:, None] * w['v'] * (1 - h**2)
    return {'W': x.T @ da, 'b': da.sum(axis=0), 'v': h.T @ dz}


def norm(g):
    return math.sqrt(sum(np.sum(leaf**2) for leaf in g.values()))


def ascend(w, g, rho):
    """w + rho g / |g|."""
    return {name: w[name] + rho * g[name] / norm(g) for name in w}


def sam_gradient(w, rho=RHO, x=X, y=Y):
    return gradient(ascend(w, gradient(w, x, y), rho), x, y)


class Descent:
    """SGD with momentum and weight decay, written out."""

    def __init__(self, lr=LR, momentum=MOMENTUM, decay=DECAY):
        self.lr, self.momentum, self.decay = lr, momentum, decay
        self.m = dict.fromkeys(START, 0.0)

    def __call__(self, w, g):
        self.m = {name: self.momentum * self.m[name] + g[name] + self.decay * w[name] for name in w}
        return {name: w[name] - self.lr * self.m[name] for name in w}


def descent():
    return optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(LR, momentum=MOMENTUM))


def start(dtype=jnp.float32):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), START)


def train(tx, steps, *, params=None, batches=None, change_state=None):
    """Trains with tx in a jitted step; batches is a list of (x, y), used in turn."""

    @jax.jit
    def step(params, state, x, y):
        grads = jax.grad(loss)(params, x, y)
        updates, state = tx.update(grads, state, params, grad_fn=lambda p: jax.grad(loss)(p, x, y))
        return optax.apply_updates(params, updates), state

    params = start() if params is None else params
    batches = [(X, Y)] if batches is None else batches
    state = tx.init(params)
    for index in range(steps):
        if change_state is not None:
            state = change_state(index, state)
        params, state = step(params, state, *batches[index % len(batches)])
    return params


def assert_close(params, expected, atol=1e-6):
    for name in expected:
        np.testing.assert_allclose(params[name], expected[name], rtol=0, atol=atol, err_msg=name)


def recorder(gradient_fn):
    seen = []

    def grad_fn(params):
        seen.append(params)
        return gradient_fn(params)

    return grad_fn, seen


def distance(a, b):
    difference = jax.tree.map(lambda x, y: np.asarray(x, np.float64) - np.asarray(y, np.float64), a, b)
    return math.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(difference)))


# ---------------------------------------------------------------------------------------------------------------------
# The method


def test_the_hand_written_gradient_is_the_gradient():
    for params in (START, ascend(START, gradient(START), 0.4)):
        assert_close(jax.grad(loss)(jax.tree.map(jnp.float32, params)), gradient(params), atol=2e-7)


def test_fifty_steps_in_float64_equal_the_textbook():
    with jax.enable_x64(True):
        params = train(optax.chain(rfn_jax.rfn_sam(0.4), descent()), 50, params=start(jnp.float64))
        assert params['W'].dtype == jnp.float64
        assert_close(params, expected_after(50), atol=1e-7)  # the norm stays in float32


def test_fifty_steps_equal_optax_contrib_sam():
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(RHO))
    theirs = optax.contrib.sam(descent(), adversary, sync_period=2, opaque_mode=True)

    @jax.jit
    def step(params, state):
        grad_fn = jax.grad(lambda params, _: loss(params))
        updates, state = theirs.update(jax.grad(loss)(params), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    params, state = start(), theirs.init(start())
    for _ in range(50):
        params, state = step(params, state)
    ours = train(optax.chain(rfn_jax.rfn_sam(RHO), descent()), 50)
    assert_close(ours, params)
    assert distance(ours, train(descent(), 50)) > 0.01  # unlike SGD


def test_a_stationary_point_stays_finite_where_contrib_sam_does_not():
    def bowl(params):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    params = jax.tree.map(jnp.zeros_like, start())
    tx = optax.chain(rfn_jax.rfn_sam(), optax.sgd(0.1))
    updates, _ = tx.update(jax.grad(bowl)(params), tx.init(params), params, grad_fn=jax.grad(bowl))
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_array_equal(leaf, np.zeros_like(leaf))

    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.4))
    theirs = optax.contrib.sam(optax.sgd(0.1), adversary, sync_period=2, opaque_mode=True)
    updates, _ = theirs.update(
        jax.grad(bowl)(params), theirs.init(params), params, grad_fn=lambda params, _: jax.grad(bowl)(params)
    )
    assert all(np.all(np.isnan(leaf)) for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize('rho', [0.05, 0.4, 100.0])
@pytest.mark.parametrize('size', [2e-38, 1e-30, 1e-3, 1e30, 1e37])
def test_the_radius_does_not_depend_on_the_size_of_the_gradient(size, rho):
    params = jax.tree.map(jnp.zeros_like, start())  # so that no rounding hides the perturbation
    signs = {name: np.sign(leaf) for name, leaf in START.items()}  # no component smaller than a normal float32
    grads = {name: jnp.float32(leaf * size) for name, leaf in signs.items()}
    grad_fn, seen = recorder(lambda params: params)
    rfn = rfn_jax.rfn_sam(rho)
    rfn.update(grads, rfn.init(params), params, grad_fn=grad_fn)
    assert_close(seen[0], ascend(dict.fromkeys(START, 0.0), signs, rho), atol=rho * 1e-6)


def test_bfloat16_uses_a_float32_norm_and_keeps_its_type():
    params = {'a': jnp.ones(5_000, jnp.bfloat16), 'b': jnp.zeros(3, jnp.float32)}
    g = np.random.default_rng(0).normal(size=5_000)
    grads = {'a': jnp.asarray(g, jnp.bfloat16), 'b': jnp.full(3, 2.0)}
    grad_fn, seen = recorder(lambda params: jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params))
    rfn = rfn_jax.rfn_sam(50.0)
    updates, _ = rfn.update(grads, rfn.init(params), params, grad_fn=grad_fn)
    exact = {name: np.asarray(leaf, np.float64) for name, leaf in grads.items()}
    expected = {name: np.asarray(params[name], np.float64) + 50 * exact[name] / norm(exact) for name in exact}
    # The float32 leaf reveals the norm, which is exact to float32 precision; in bfloat16 it would be off by up to 1/256.
    np.testing.assert_allclose(seen[0]['b'], expected['b'], rtol=1e-6)
    np.testing.assert_array_equal(seen[0]['a'], jnp.asarray(expected['a'], jnp.bfloat16))
    for tree in (seen[0], updates):
        assert {name: leaf.dtype for name, leaf in tree.items()} == {'a': jnp.bfloat16, 'b': jnp.float32}


def test_each_of_several_steps_follows_the_gradient_at_the_current_point():
    rfn = rfn_jax.rfn_sam(0.9, ascent_steps=3)
    _, state = rfn.update(jax.grad(loss)(start()), rfn.init(start()), start(), grad_fn=jax.grad(loss))
    w = START
    for _ in range(3):
        g = gradient(w)
        w = {name: w[name] + 0.3 * g[name] / norm(g) for name in w}
    assert float(state.perturbation_norm) == pytest.approx(distance(w, START), rel=1e-5)
    assert distance(w, START) < 0.899  # the path is curved
    assert int(state.ascent_count) == 3


def test_the_number_of_steps_may_be_injected_and_set():
    tx = optax.inject_hyperparams(rfn_jax.rfn_sam, static_args='mask')(0.9, ascent_steps=1)
    update = jax.jit(lambda state: tx.update(jax.grad(loss)(start()), state, start(), grad_fn=jax.grad(loss)))
    for steps in (1, 2, 4):
        state = tx.init(start())
        state.hyperparams['ascent_steps'] = jnp.asarray(steps)
        updates, state = update(state)
        rfn = rfn_jax.rfn_sam(0.9, ascent_steps=steps)
        expected, _ = rfn.update(jax.grad(loss)(start()), rfn.init(start()), start(), grad_fn=jax.grad(loss))
        assert_close(updates, expected)
        assert int(state.inner_state.ascent_count) == steps


# ---------------------------------------------------------------------------------------------------------------------
# The mask

MASK = {'W': True, 'b': False, 'v': True}


def masked_ascent(w, g, rho, keep=('W', 'v')):
    size = math.sqrt(sum(np.sum(g[name] ** 2) for name in keep))
    return {name: w[name] + (rho * g[name] / size if name in keep else 0) for name in w}


def test_masked_out_values_are_not_used():
    # NaN in a masked-out gradient reaches neither the norm nor the perturbed point.
    grads = jax.grad(loss)(start()) | {'b': jnp.full(4, jnp.nan)}
    grad_fn, seen = recorder(jax.grad(loss))
    rfn = rfn_jax.rfn_sam(RHO, mask=MASK)
    rfn.update(grads, rfn.init(start()), start(), grad_fn=grad_fn)
    assert_close(seen[0], masked_ascent(START, gradient(START), RHO))


def test_a_mask_that_selects_nothing_gives_the_base_optimizer():
    mask = dict.fromkeys(START, False)
    assert_close(train(optax.chain(rfn_jax.rfn_sam(RHO, mask=mask), descent()), 10), train(descent(), 10))


# ---------------------------------------------------------------------------------------------------------------------
# Compatibility with optax


def test_other_extra_arguments_are_ignored():
    tx = optax.chain(rfn_jax.rfn_sam(), descent(), optax.contrib.reduce_on_plateau())
    state = tx.init(start())
    arguments = {'grad_fn': jax.grad(loss)}
    updates, _ = tx.update(jax.grad(loss)(start()), state, start(), value=1.0, key=jax.random.key(0), **arguments)
    plain = optax.chain(rfn_jax.rfn_sam(), descent())
    expected, _ = plain.update(jax.grad(loss)(start()), plain.init(start()), start(), **arguments)
    assert_close(updates, expected, atol=0)


def test_the_example_of_the_docstring_runs():
    results = doctest.testmod(importlib.import_module('rfn_jax.optim.sam'))
    assert results.attempted > 0
    assert results.failed == 0


# ---------------------------------------------------------------------------------------------------------------------
# The composition table of the docstring


def expected_after(steps, rho_of=lambda step: RHO, lr_of=lambda step: LR):
    w, down = START, Descent()
    for step in range(steps):
        down.lr = lr_of(step)
        w = down(w, sam_gradient(w, rho_of(step)))
    return w


def test_inject_hyperparams_around_the_whole_chain():
    def make(rho, learning_rate):
        return optax.chain(
            rfn_jax.rfn_sam(rho), optax.add_decayed_weights(DECAY), optax.sgd(learning_rate, momentum=MOMENTUM)
        )

    tx = optax.inject_hyperparams(make)(rho=RHO, learning_rate=LR)

    def change(step, state):
        state.hyperparams['rho'] = jnp.float32(0.1 * (step + 1))
        state.hyperparams['learning_rate'] = jnp.float32(0.1 / (step + 1))
        return state

    expected = expected_after(6, lambda step: 0.1 * (step + 1), lambda step: 0.1 / (step + 1))
    assert_close(train(tx, 6, change_state=change), expected)


BATCHES = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 32, 8)]


def mean(gradients):
    return {name: np.mean([g[name] for g in gradients], axis=0) for name in START}


def test_multisteps_around_it_mixes_the_mean_and_the_last_micro_batch():
    params = train(optax.MultiSteps(optax.chain(rfn_jax.rfn_sam(RHO), descent()), 4), 12, batches=BATCHES)
    w, down = START, Descent()
    for _ in range(3):
        g = mean([gradient(w, *batch) for batch in BATCHES])
        w = down(w, gradient(ascend(w, g, RHO), *BATCHES[-1]))
    assert_close(params, w)


def test_multisteps_around_it_is_right_when_grad_fn_covers_all_micro_batches():
    tx = optax.MultiSteps(optax.chain(rfn_jax.rfn_sam(RHO), descent()), 4)
    update = jax.jit(
        lambda params, state, x, y: tx.update(jax.grad(loss)(params, x, y), state, params, grad_fn=jax.grad(loss))
    )
    params, state = start(), tx.init(start())
    for index in range(12):
        updates, state = update(params, state, *BATCHES[index % 4])
        params = optax.apply_updates(params, updates)
    assert_close(params, expected_after(3))


def test_masked_weight_decay_behind_it():
    mask = {'W': True, 'b': False, 'v': False}
    tx = optax.chain(
        rfn_jax.rfn_sam(RHO), optax.masked(optax.add_decayed_weights(0.1), mask), optax.sgd(LR, momentum=MOMENTUM)
    )
    w, down = START, Descent(decay=0)
    for _ in range(10):
        g = sam_gradient(w)
        w = down(w, g | {'W': g['W'] + 0.1 * w['W']})
    assert_close(train(tx, 10), w)


def test_partition_behind_it_freezes():
    labels = {'W': 'train', 'b': 'freeze', 'v': 'train'}
    tx = optax.chain(rfn_jax.rfn_sam(RHO), optax.partition({'train': descent(), 'freeze': optax.set_to_zero()}, labels))
    w, down = START, Descent()
    for _ in range(10):
        w = down(w, sam_gradient(w)) | {'b': START['b']}
    assert_close(train(tx, 10), w)


def diverging(params):
    """Finite at the start and NaN at every point 0.3 or more away from it."""
    away = sum(jnp.sum((params[name] - jnp.asarray(START[name], jnp.float32)) ** 2) for name in START)
    return jax.tree.map(lambda g: jnp.where(away > 0.09, jnp.nan, g), jax.grad(loss)(params))


@pytest.mark.parametrize(('rho', 'skipped'), [(0.2, 0), (0.6, 1), (1.2, 1)])
def test_gradients_that_are_not_finite_during_the_ascent(rho, skipped):
    # Of the three gradients, all are finite, or only the first, or none.
    rfn = rfn_jax.rfn_sam(rho, ascent_steps=3)
    updates, state = rfn.update(jax.grad(loss)(start()), rfn.init(start()), start(), grad_fn=diverging)
    assert int(state.skipped_count) == skipped
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(updates))
    assert all(np.all((leaf == 0) == bool(skipped)) for leaf in jax.tree.leaves(updates))


def test_schedule_free_around_it():
    tx = optax.contrib.schedule_free(optax.chain(rfn_jax.rfn_sam(RHO), optax.sgd(LR)), LR, b1=0.9)
    # Defazio et al., 2024: the gradient is taken at y; z is the SGD sequence and x its mean.
    x, z, y = START, START, START
    for step in range(10):
        g = sam_gradient(y)
        z = {name: z[name] - LR * g[name] for name in z}
        x = {name: (1 - 1 / (step + 1)) * x[name] + z[name] / (step + 1) for name in x}
        y = {name: 0.9 * x[name] + 0.1 * z[name] for name in y}
    assert_close(train(tx, 10), y)


def test_lookahead_around_it_fails_because_it_does_not_accept_grad_fn():
    tx = optax.lookahead(optax.chain(rfn_jax.rfn_sam(), descent()), 5, 0.5)
    params = optax.LookaheadParams.init_synced(start())
    grads = jax.grad(loss)(params.fast)
    with pytest.raises(TypeError, match='grad_fn'):
        tx.update(grads, tx.init(params), params, grad_fn=jax.grad(loss))
    with pytest.raises(ValueError, match=r'rfn_sam needs the gradient function'):
        tx.update(grads, tx.init(params), params)


def test_flatten_around_it_fails_because_grad_fn_gets_flat_parameters():
    tx = optax.flatten(optax.chain(rfn_jax.rfn_sam(), descent()))
    state = tx.init(start())
    grad_fn, seen = recorder(jax.grad(loss))
    with pytest.raises((TypeError, IndexError)):
        tx.update(jax.grad(loss)(start()), state, start(), grad_fn=grad_fn)
    assert seen[0].ndim == 1


def test_an_optimizer_in_front_of_it_ascends():
    # The reason for the first rule in the docstring.
    wrong = train(optax.chain(optax.sgd(0.1), rfn_jax.rfn_sam(0.05)), 5)
    assert float(loss(wrong)) > float(loss(start()))


def test_a_clip_in_front_of_it_does_nothing():
    clipped = train(optax.chain(optax.clip_by_global_norm(1e-3), rfn_jax.rfn_sam(RHO), descent()), 5)
    assert_close(clipped, expected_after(5))

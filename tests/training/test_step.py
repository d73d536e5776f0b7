import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from batch_of import batch_of

from rfn_jax import models, optim, training
from rfn_jax.core import rng, sharding

KEY = rng.key_for(0, 'augment', 1)


def identity(images, keys):
    del keys
    return images


DESCENT = optim.momentum_sgd(0.05, momentum=0.9, weight_decay=5e-4)


def build(bench, minimizer, descent=DESCENT, devices=1, **options):
    mesh = sharding.data_mesh(jax.devices()[:devices])
    c = bench.classifier
    tx = optax.chain(minimizer, descent)
    step = training.train_step(c.module, c.mean, c.std, tx, identity, mesh, **options)
    state = training.create(c, tx)
    state = sharding.place(state, sharding.of_state(state, mesh, shard=options.get('shard_state', False)))
    return lambda state, positions: step(state, batch_of(bench.train, positions), KEY), state


def positions(step):
    return np.arange(16) + 16 * step


def textbook_sam(bench, steps, *, rho, lr, momentum, decay):
    """SAM in the paper's notation, one array at a time, with the statistics of the batch at each point."""
    c = bench.classifier
    x_all = (bench.train.images / np.float32(255) - np.float32(c.mean[0])) / np.float32(c.std[0])

    def loss(w, stats, x, y):
        z, new = c.module.apply({'params': w, 'batch_stats': stats}, x, train=True, mutable=['batch_stats'])
        return -jnp.mean(jax.nn.log_softmax(z)[jnp.arange(len(y)), y]), new['batch_stats']

    w, stats = c.variables['params'], c.variables['batch_stats']
    m = jax.tree.map(jnp.zeros_like, w)
    for t in range(steps):
        x, y = x_all[16 * t : 16 * t + 16], bench.train.labels[16 * t : 16 * t + 16]
        g, new_stats = jax.grad(loss, has_aux=True)(w, stats, x, y)
        norm = float(np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in jax.tree.leaves(g))))
        w_hat = jax.tree.map(lambda a, b, norm=norm: a + rho * b / norm, w, g)
        g_hat, _ = jax.grad(loss, has_aux=True)(w_hat, stats, x, y)
        m = jax.tree.map(lambda a, b, c: momentum * a + b + decay * c, m, g_hat, w)
        w = jax.tree.map(lambda a, b: a - lr * b, w, m)
        stats = new_stats
    return w, stats


@pytest.mark.accelerator
def test_equals_textbook_sam_and_updates_statistics_once_at_the_unperturbed_weights(conv_bench):
    step, state = build(conv_bench, optim.rfn_sam(0.3))
    for t in range(4):
        state, _ = step(state, positions(t))
    w, stats = textbook_sam(conv_bench, 4, rho=0.3, lr=0.05, momentum=0.9, decay=5e-4)
    for ours, theirs in ((state.params, w), (state.batch_stats, stats)):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5), ours, theirs)
    assert int(state.step) == 4


def test_perturbation_changes_the_weights(conv_bench):
    def trained(minimizer):
        step, state = build(conv_bench, minimizer)
        return step(state, positions(0))[0].params['fc']['kernel']

    assert np.abs(trained(optim.rfn_sam(0.3)) - trained(optax.identity())).max() > 1e-4
    np.testing.assert_array_equal(trained(optim.rfn_sam(0.0)), trained(optax.identity()))


@pytest.mark.parametrize('minimizer', [optax.identity(), optim.rfn_sam(0.3)], ids=['sgd', 'rfn_sam'])
def test_eight_devices_equal_one(conv_bench, minimizer):
    results = []
    for devices in (1, 8):
        step, state = build(conv_bench, minimizer, devices=devices)
        for t in range(3):
            state, values = step(state, positions(t))
        results.append(jax.device_get((state.params, state.batch_stats, values)))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *results)


def test_compiles_once_and_donates_the_state(conv_bench):
    calls = []

    def counted(images, keys):
        calls.append(keys)
        return images

    c, mesh = conv_bench.classifier, sharding.data_mesh(jax.devices()[:1])
    tx = optax.chain(optim.rfn_sam(0.3), DESCENT)
    step = training.train_step(c.module, c.mean, c.std, tx, counted, mesh)
    state = sharding.replicate(training.create(c, tx), mesh)
    for t in range(4):
        before = state
        state, _ = step(state, batch_of(conv_bench.train, positions(t)), KEY)
    assert len(calls) == 1
    assert before.params['fc']['kernel'].is_deleted()
    assert not c.variables['params']['fc']['kernel'].is_deleted()


def test_an_optimizer_without_extra_arguments_is_accepted(conv_bench):
    step, state = build(conv_bench, optax.identity(), optax.scale(-0.1))
    new, values = step(state, positions(0))
    assert np.isfinite(values['loss'])
    assert not np.array_equal(new.params['fc']['kernel'], conv_bench.classifier.variables['params']['fc']['kernel'])


def test_models_without_batch_statistics_train(conv_bench):
    module = models.MODELS.make('vit', num_classes=10, patch_size=4, width=8, depth=1, heads=2, mlp_width=8)
    classifier = models.initialize(module, rng.key_for(0, 'vit'), (8, 8, 1), num_classes=10)
    step, state = build(
        dataclasses.replace(conv_bench, classifier=classifier),
        optim.rfn_sam(0.1),
        optim.momentum_sgd(0.01, momentum=0.9, weight_decay=0.0),
    )
    first = None
    for t in range(8):
        state, values = step(state, positions(t % 4))
        first = values['loss'] if first is None else first
    assert values['loss'] < first

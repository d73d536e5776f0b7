"""Training with mixed and smoothed labels: in every way of dividing a batch, labels stay with their examples."""

import functools
import json
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batch_of import batch_of

from rfn_jax import data, models, optim, training
from rfn_jax.core import console, losses, rng, sharding
from rfn_jax.core.errors import InputError
from rfn_jax.training import objectives

B, K, SMOOTHING, RATE = 32, 10, 0.1, 0.1
KEY = rng.key_for(0, 'augment', 1)


class Net(nn.Module):
    """A convolution and a dense layer, with an auxiliary head on request; without batch statistics."""

    auxiliary: bool = False
    auxiliary_weight: float = 0.3

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.relu(models.layers.conv(8, 3, strides=2, name='conv')(x)).reshape(len(x), -1)
        if self.auxiliary and train:
            self.sow('auxiliary_logits', 'head', models.layers.dense(K, name='aux')(x))
        return models.layers.dense(K, name='fc')(x)


def marked(images, labels, keys):
    """A soft label that every image alone determines, so that a label with the wrong image is noticed."""
    del labels, keys
    weights = images.reshape(len(images), -1)[:, 8 : 8 + K] + 0.1
    return images, weights / jnp.sum(weights, axis=1, keepdims=True)


def run(bench, minimizer, devices, *, mix=marked, label_smoothing=SMOOTHING, steps=2, **options):
    """The state and the metrics after some steps."""
    mesh = sharding.data_mesh(jax.devices()[:devices])
    c = models.initialize(Net(), rng.key_for(0, 'test'), (8, 8, 1), num_classes=K)
    tx = optim.Optimizer(minimizer, optim.momentum_sgd(RATE, momentum=0.0, weight_decay=0.0))
    soft = {'mix': mix, 'label_smoothing': label_smoothing}
    step = training.train_step(c.module, c.mean, c.std, tx, lambda x, k: x, mesh, **soft, **options)
    state = training.create(c, tx)
    state = sharding.place(state, sharding.of_state(state, mesh, shard=False))
    for t in range(steps):
        state, metrics = step(state, batch_of(bench.train, np.arange(B) + t), KEY)
    return jax.device_get((state.params, metrics))


def assert_close(a, b):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), a, b)


def textbook(bench, rho, m, steps=2):
    """SAM with one perturbation for every m examples, one example after another, in plain cross-entropy."""
    c = models.initialize(Net(), rng.key_for(0, 'test'), (8, 8, 1), num_classes=K)
    w = c.variables['params']

    def loss(w, x, p):
        q = (1 - SMOOTHING) * p + SMOOTHING / K
        return jnp.mean(-jnp.sum(q * jax.nn.log_softmax(c.module.apply({'params': w}, x)), axis=1))

    gradient = jax.jit(jax.grad(loss))
    for t in range(steps):
        x = jnp.asarray(bench.train.images[t : t + B], jnp.float32) / 255
        p = marked(x, None, None)[1]
        found = []
        for start in range(0, B, m):
            part = x[start : start + m], p[start : start + m]
            g = gradient(w, *part)
            norm = np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in jax.tree.leaves(g)))
            top = jax.tree.map(lambda a, b, norm=norm: a + rho * b / norm, w, g)
            found.append(gradient(top, *part))
        w = jax.tree.map(lambda a, *leaves: a - RATE * sum(leaves) / len(leaves), w, *found)
    return w


@pytest.mark.parametrize(
    ('m', 'devices', 'options'),
    [
        (B, 1, {}),
        pytest.param(B, 8, {'micro_batch_size': 8}, marks=pytest.mark.slow),
        (8, 1, {'group_size': 8, 'micro_batch_size': 4}),
        pytest.param(8, 4, {'group_size': 8}, marks=pytest.mark.slow),
        pytest.param(16, 8, {'group_size': 16, 'micro_batch_size': 4}, marks=pytest.mark.slow),
        pytest.param(4, 8, {'group_size': 'device'}, marks=pytest.mark.slow),
    ],
)
def test_every_division_of_a_batch_equals_the_textbook(bench, m, devices, options):
    params, _ = run(bench, optim.rfn_sam(0.3), devices, **options)
    assert_close(params, textbook(bench, 0.3, m))


@pytest.mark.slow
@pytest.mark.parametrize('options', [{}, {'group_size': 16, 'micro_batch_size': 4}])
def test_esam_keeps_the_labels_of_the_examples_that_it_selects(bench, options):
    minimizer = optim.esam(0.3, beta=1.0, gamma=0.5)
    params, metrics = run(bench, minimizer, 1, steps=1, **options)
    # The same selection, by hand.
    c = models.initialize(Net(), rng.key_for(0, 'test'), (8, 8, 1), num_classes=K)
    w = c.variables['params']
    x = jnp.asarray(bench.train.images[:B], jnp.float32) / 255
    p = marked(x, None, None)[1]

    @jax.jit
    def values(w, x, p):
        return losses.cross_entropy(c.module.apply({'params': w}, x), p, label_smoothing=SMOOTHING)

    gradient = jax.jit(jax.grad(lambda w, x, p: jnp.mean(values(w, x, p))))
    m, found = options.get('group_size', B), []
    for start in range(0, B, m):
        part = x[start : start + m], p[start : start + m]
        g = gradient(w, *part)
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(g)))
        top = jax.tree.map(lambda a, b, norm=norm: a + 0.3 * b / norm, w, g)
        kept = np.argsort(-(values(top, *part) - values(w, *part)), stable=True)[: m // 2]
        found.append(gradient(top, part[0][kept], part[1][kept]))
    assert_close(params, jax.tree.map(lambda a, *leaves: a - RATE * sum(leaves) / len(leaves), w, *found))
    predicted = np.argmax(c.module.apply({'params': w}, x), axis=1)
    np.testing.assert_allclose(metrics['accuracy'], np.mean(predicted == np.argmax(p, axis=1)))
    np.testing.assert_allclose(metrics['loss'], np.mean(values(w, x, p)), rtol=1e-5)


@pytest.mark.slow
def test_mixing_is_done_before_the_batch_is_divided_and_is_the_same_on_all_devices(bench):
    mix, seen = data.Mixing(K, mixup=0.5, cutmix=1.0), []

    def spy(images, labels, keys):
        seen.append((images.shape, labels.dtype, keys.shape))
        return mix(images, labels, keys)

    one = run(bench, optim.rfn_sam(0.3), 1, mix=spy)
    assert_close(one, run(bench, optim.rfn_sam(0.3), 8, mix=spy, group_size=B, micro_batch_size=8))
    assert seen == [((B, 8, 8, 1), jnp.int32, (B,))] * 2
    assert np.abs(one[0]['fc']['kernel'] - run(bench, optim.rfn_sam(0.3), 1)[0]['fc']['kernel']).max() > 1e-3


def test_one_hot_labels_equal_integers(bench):
    one_hot = run(bench, optim.rfn_sam(0.3), 1, mix=data.Mixing(K), label_smoothing=0.0)
    assert_close(one_hot, run(bench, optim.rfn_sam(0.3), 1, mix=None, label_smoothing=0.0))


@pytest.mark.slow
def test_auxiliary_heads_have_smoothed_labels_too():
    module = Net(auxiliary=True)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8, 8, 1)), jnp.float32)
    labels = jnp.arange(8, dtype=jnp.int32)
    params = module.init(rng.key_for(0, 'test'), x, train=True)['params']
    found = objectives.objective(module, {}, x, labels, label_smoothing=0.2).value_and_grad(params)[0].losses
    logits, sown = module.apply({'params': params}, x, train=True, mutable=['auxiliary_logits'])
    (head,) = jax.tree.leaves(sown)
    own, auxiliary = (losses.cross_entropy(z, labels, label_smoothing=0.2) for z in (logits, head))
    np.testing.assert_allclose(found, own + 0.3 * auxiliary, rtol=1e-5)


@pytest.mark.slow
def test_a_run_with_everything_on_ends_with_the_same_weights_after_a_restart(bench, tmp_path):
    augmentation = data.Augmentation(
        flip=True, random_resized_crop=(0.5, 1.0), rand_augment=(1, 3), mixup=0.2, cutmix=1.0
    )
    recipe = training.Recipe(**{**bench.options, 'epochs': 2, 'label_smoothing': 0.1, 'augmentation': augmentation})
    mesh = sharding.data_mesh(jax.devices()[:2])
    host = recipe.augmentation.on_host()
    loader = data.loader(bench.train, bench.train.info(), batch_size=16, seed=0, mesh=mesh, augmentation=host)
    program = training.program(bench.classifier, recipe, steps_per_epoch=4, mesh=mesh, streaming=True)
    digests = []
    for _ in range(2):
        run = training.Run(bench.classifier, loader, tmp_path, 'test')
        training.fit([run], bench.validation, program, keep_all=True, batch_size=32, console=console.Console())
        digests.append(bench.variables_digest(tmp_path, 2))
        shutil.rmtree(tmp_path / 'checkpoints' / '2')
    assert digests[0] == digests[1]
    lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert all(0 <= line['accuracy'] <= 1 and line['loss'] > 0 for line in lines)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'label_smoothing': 1.0}, 'label_smoothing must be a finite number at least 0 and below 1, got 1.0'),
        (
            {'augmentation': data.Augmentation(cutmix=1.0), 'batch_size': 1},
            'mixup and cutmix need a batch_size of at least 2, got 1',
        ),
        (
            {'augmentation': data.Augmentation(rand_augment=(2, 9)), 'streaming': False},
            'streaming must be True or None, got False',
        ),
    ],
)
def test_wrong_recipes_are_refused(bench, options, message):
    with pytest.raises(InputError, match=message):
        training.Recipe(**{**bench.options, **options})

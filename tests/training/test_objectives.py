import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import data, models, optim, training
from rfn_jax.core import losses, rng, sharding
from rfn_jax.training import objectives

KEY = rng.key_for(0, 'dropout')
IMAGES = np.random.default_rng(0).normal(size=(8, 4, 4, 1)).astype(np.float32)
LABELS = np.arange(8, dtype=np.int32) % 3


class Noisy(nn.Module):
    """A dense layer with dropout before it, optional batch normalization, and an auxiliary head."""

    dropout: float = 0.5
    auxiliary: bool = True
    auxiliary_weight: float = 0.3
    norm: bool = False

    @nn.compact
    def __call__(self, x, *, train=False):
        x = x.reshape(x.shape[0], -1)
        x = nn.BatchNorm(use_running_average=not train, name='bn')(x) if self.norm else x
        if self.auxiliary:
            auxiliary = nn.Dense(3, name='aux')(x)
            if train:
                self.sow('auxiliary_logits', 'head', auxiliary)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(3, name='fc')(x)


def params_of(module):
    return module.init(rng.key_for(0, 'initialize'), IMAGES)['params']


def objective(module, key=KEY, **options):
    return objectives.objective(module, {}, jnp.asarray(IMAGES), jnp.asarray(LABELS), key, **options)


def assert_close(a, b, atol=0.0):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol), a, b)


@pytest.mark.slow
def test_auxiliary_heads_add_their_weighted_cross_entropy():
    module = Noisy(dropout=0.0)
    params = params_of(module)
    result, gradient = objective(module).value_and_grad(params)
    x = IMAGES.reshape(8, -1)
    values = [losses.cross_entropy(x @ params[n]['kernel'] + params[n]['bias'], LABELS) for n in ('fc', 'aux')]
    assert_close(result.losses, values[0] + 0.3 * values[1])
    assert np.abs(gradient['aux']['kernel']).max() > 1e-3
    plain = objective(Noisy(dropout=0.0, auxiliary=False)).value_and_grad({'fc': params['fc']})[0]
    assert_close(plain.losses, values[0])


def test_dropout_is_the_same_in_every_evaluation_of_a_step_and_follows_the_key():
    module = Noisy()
    params = params_of(module)
    one, other = objective(module), objective(module, rng.key_for(1, 'dropout'))
    first = one.value_and_grad(params)[0].losses
    np.testing.assert_array_equal(first, one.losses(params))
    np.testing.assert_allclose(one.grad(params)['fc']['kernel'], one.value_and_grad(params)[1]['fc']['kernel'])
    assert np.abs(first - other.losses(params)).max() > 1e-2


def test_micro_batches_draw_their_own_dropout():
    module = Noisy(auxiliary=False)
    params = params_of(module)
    pieces = objective(module, micro_batch_size=4)
    values = pieces.losses(params)
    dropped = [i for i in range(8) if not np.isclose(values[i], objective(module).losses(params)[i], atol=1e-4)]
    assert dropped  # other masks than without micro-batches
    calm = Noisy(dropout=0.0, auxiliary=False)
    assert_close(objective(calm, micro_batch_size=4).losses(params), objective(calm).losses(params))


@pytest.mark.parametrize('group_size', [None, pytest.param(4, marks=pytest.mark.slow)])
def test_each_step_draws_new_dropout_that_is_the_same_on_all_devices(group_size):
    module = Noisy()
    classifier = models.Classifier({'params': params_of(module)}, module, 3)
    batch = data.Batch(np.uint8(IMAGES * 20 + 128), LABELS, np.arange(8, dtype=np.uint32))
    tx = optim.Optimizer(optim.rfn_sam(0.1), optim.momentum_sgd(0.0, momentum=0.0, weight_decay=0.0))
    results = []
    for devices in (1, 2):
        mesh = sharding.data_mesh(jax.devices()[:devices])
        step = training.train_step(module, (0.5,), (0.25,), tx, lambda x, k: x, mesh, group_size=group_size)
        state = training.create(classifier, tx)
        state = sharding.place(state, sharding.of_state(state, mesh, shard=False))
        values = []
        for _ in range(2):
            state, metrics = step(state, batch, KEY)
            values.append(float(metrics['loss']))
        results.append(values)
    assert abs(results[0][0] - results[0][1]) > 1e-3
    assert_close(*results)


@pytest.mark.parametrize('micro_batch_size', [None, pytest.param(4, marks=pytest.mark.slow)])
def test_without_dropout_no_key_is_needed(micro_batch_size):
    module = Noisy(dropout=0.0)
    params = params_of(module)
    found, expected = (objective(module, key, micro_batch_size=micro_batch_size) for key in (None, KEY))
    for a, b in ((found.losses(params), expected.losses(params)), (found.grad(params), expected.grad(params))):
        jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize('micro_batch_size', [None, 3])
def test_in_evaluation_mode_it_is_the_loss_of_the_classifier(micro_batch_size):
    module = Noisy(norm=True)
    variables = module.init(rng.key_for(0, 'initialize'), IMAGES)
    stats = jax.tree.map(lambda leaf: leaf + 0.3, variables['batch_stats'])
    images, labels = jnp.asarray(IMAGES[:6]), jnp.asarray(LABELS[:6])
    found = objectives.objective(module, stats, images, labels, train=False, micro_batch_size=micro_batch_size)
    result, gradient = found.value_and_grad(variables['params'])

    def loss(params):
        logits = module.apply({'params': params, 'batch_stats': stats}, images, train=False)
        return jnp.mean(losses.cross_entropy(logits, labels)), logits

    (expected, logits), expected_gradient = jax.value_and_grad(loss, has_aux=True)(variables['params'])
    assert_close((jnp.mean(result.losses), result.accuracy), (expected, np.mean(np.argmax(logits, -1) == labels)))
    assert_close(gradient, expected_gradient, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, result.batch_stats, stats)

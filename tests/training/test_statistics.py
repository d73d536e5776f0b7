import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import models, training
from rfn_jax.core import errors, rng, sharding


def reestimate(classifier, examples, batch_size, devices=1):
    mesh = sharding.data_mesh(jax.devices()[:devices])
    return training.reestimate_batch_stats(classifier, examples, batch_size=batch_size, mesh=mesh)


class Dropped(nn.Module):
    """Dropout before a normalization."""

    rate: float

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dropout(self.rate, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(10)(nn.BatchNorm(use_running_average=not train, momentum=0.7, name='bn')(x))


def dropped(rate, **normalization):
    return models.initialize(Dropped(rate), rng.key_for(0, 'dropped'), (8, 8, 1), num_classes=10, **normalization)


@pytest.mark.parametrize('devices', [1, 8])
def test_statistics_are_the_mean_over_batches_for_any_momentum_and_old_statistics(conv_bench, devices):
    c, train = dropped(0.0, mean=(0.4,), std=(0.3,)), conv_bench.train
    noise = jax.tree.map(lambda leaf: leaf + 7.0, c.variables['batch_stats'])
    c = c.replace(variables={**c.variables, 'batch_stats': noise})
    new = reestimate(c, train, 24, devices)  # 64 examples: two batches
    x = ((train.images / 255 - 0.4) / 0.3)[:48].reshape(2, 24, -1)
    found = new.variables['batch_stats']['bn']
    np.testing.assert_allclose(found['mean'], x.mean(axis=1).mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found['var'], x.var(axis=1).mean(axis=0), rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, c.variables['params'], new.variables['params'])


def test_one_batch_makes_evaluation_agree_with_training(conv_bench):
    c, train = conv_bench.classifier, conv_bench.train
    new = reestimate(c, train, len(train))
    images = jnp.asarray(train.images, jnp.float32) / 255
    normalized = models.normalize(images, c.mean, c.std)
    logits, _ = c.module.apply(c.variables, normalized, train=True, mutable=['batch_stats'])
    np.testing.assert_allclose(new(images), logits, rtol=1e-4, atol=1e-4)


def test_dropout_is_on_and_the_same_in_all_batches(conv_bench):
    c = dropped(0.4)
    train = dataclasses.replace(conv_bench.train, images=np.full_like(conv_bench.train.images, 51))

    def statistics(examples):
        return reestimate(c, examples, 32).variables['batch_stats']['bn']

    found = statistics(train)  # two batches
    # A value is 0.2 / 0.6 with probability 0.6, otherwise 0; each of 64 channels has 32 of them in each batch.
    share = 0.6 * found['mean'] / 0.2
    np.testing.assert_allclose(share * 32, np.round(share * 32), atol=1e-3)  # one mask for both
    assert float(share.mean()) == pytest.approx(0.6, abs=4 * np.sqrt(0.24 / 2048))
    np.testing.assert_allclose(found['var'], (0.2 / 0.6) ** 2 * share * (1 - share), rtol=1e-3, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, found, statistics(train.take(np.arange(32))))


def test_a_model_without_statistics_is_left_alone(conv_bench):
    module = models.MODELS.make('vit', num_classes=10, patch_size=4, width=8, depth=1, heads=2, mlp_width=8)
    c = models.initialize(module, rng.key_for(0, 'vit'), (8, 8, 1), num_classes=10)
    assert reestimate(c, conv_bench.train, 16) is c


@pytest.mark.parametrize('batch_size', [0, 65, 12])
def test_a_batch_size_out_of_range_is_refused(conv_bench, batch_size):
    message = f'batch_size must be 1 to 64 and a multiple of 8 devices, got {batch_size}'
    with pytest.raises(errors.InputError, match=message):
        reestimate(conv_bench.classifier, conv_bench.train, batch_size, devices=8)

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.core import sharding
from rfn_jax.data import ImageDataset
from rfn_jax.models import Classifier
from rfn_jax.transfer import predictions, successes


class Brightness(nn.Module):
    """Class 1 if the mean of the image is above a threshold."""

    @nn.compact
    def __call__(self, x, *, train):
        threshold = self.param('threshold', nn.initializers.zeros, ())
        excess = jnp.mean(x, axis=(1, 2, 3)) - threshold
        return jnp.stack([-excess, excess], axis=-1)


def target(threshold):
    return Classifier({'params': {'threshold': jnp.float32(threshold)}}, Brightness(), 2)


TARGETS = {'low': target(0.25), 'high': target(0.75)}


def constant_images(*levels):
    return np.array(levels, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 2, 2, 1), np.uint8)


@pytest.fixture
def examples():
    return ImageDataset(
        constant_images(0, 128, 255, 100, 200), np.array([0, 0, 1, 1, 1], np.int32), np.arange(5), ('0', '1'), 'toy'
    )


@pytest.mark.parametrize('devices', [1, 8])
def test_predictions_of_each_target(examples, devices):
    mesh = sharding.data_mesh(jax.devices()[:devices])
    result = predictions(TARGETS, examples, batch_size=2, mesh=mesh)
    assert list(result) == ['low', 'high']
    np.testing.assert_array_equal(result['low'], [0, 1, 1, 1, 1])
    np.testing.assert_array_equal(result['high'], [0, 0, 1, 0, 1])


def test_success_is_a_wrong_class_of_the_adversarial_image(examples):
    mesh = sharding.data_mesh(jax.devices()[:1])
    adversarial = constant_images(100, 128, 10, 255, 100)
    result = successes(TARGETS, adversarial, examples, batch_size=2, mesh=mesh)
    np.testing.assert_array_equal(result['low'], [True, True, True, False, False])
    np.testing.assert_array_equal(result['high'], [False, False, True, False, True])
    assert result['low'].dtype == bool

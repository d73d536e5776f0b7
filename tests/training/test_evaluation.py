import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import training
from rfn_jax.core import sharding
from rfn_jax.data import ImageDataset, ResizedSource
from rfn_jax.models import Classifier


class Pixels(nn.Module):
    """The logits are the seven pixels of an image, times a factor."""

    @nn.compact
    def __call__(self, x, *, train):
        return x.reshape(len(x), -1) * self.param('factor', nn.initializers.ones, ())


IMAGES = np.random.default_rng(0).permuted(np.tile(np.arange(7, dtype=np.uint8), (11, 1)), axis=1).reshape(11, 1, 7, 1)
LABELS = np.arange(11, dtype=np.int32) % 7
EXAMPLES = ImageDataset(IMAGES, LABELS, np.arange(11) + 2**40, tuple('abcdefg'), 'toy')
CLASSIFIERS = {
    name: Classifier({'params': {'factor': jnp.float32(f)}}, Pixels(), 7) for name, f in (('up', 1), ('down', -1))
}


@pytest.mark.parametrize('examples', [EXAMPLES, ResizedSource(EXAMPLES, lambda image: image)], ids=['memory', 'read'])
@pytest.mark.parametrize(('devices', 'batch_size'), [(1, 1), (1, 4), (2, 11), (8, 3)])
def test_classes_and_ranks_are_those_of_the_logits(examples, devices, batch_size, monkeypatch):
    monkeypatch.setattr(training.evaluation, 'PENDING', 1)
    mesh = sharding.data_mesh(jax.devices()[:devices])
    found = training.predict_all(CLASSIFIERS, examples, batch_size=batch_size, mesh=mesh)
    np.testing.assert_array_equal(found.labels, LABELS)
    for name, sign in (('up', 1), ('down', -1)):
        logits = sign * IMAGES.reshape(11, 7).astype(int)
        np.testing.assert_array_equal(found.classes[name], logits.argmax(1))
        np.testing.assert_array_equal(found.correct(name), logits.argmax(1) == LABELS)
        truth = logits[np.arange(11), LABELS][:, None]
        np.testing.assert_array_equal(found.in_top5[name], (logits > truth).sum(1) < 5)
    accuracy = training.accuracy(CLASSIFIERS['up'], examples, batch_size=batch_size, mesh=mesh)
    assert accuracy == found.correct('up').mean()

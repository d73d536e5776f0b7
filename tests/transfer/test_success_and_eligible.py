import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.core import sharding
from rfn_jax.core.errors import InputError
from rfn_jax.data import ImageDataset
from rfn_jax.models import Classifier
from rfn_jax.transfer import eligible_examples, eligible_positions, predictions, successes


class Brightness(nn.Module):
    """Class 1 if the mean of the image is above a threshold."""

    @nn.compact
    def __call__(self, x, *, train):
        threshold = self.param('threshold', nn.initializers.zeros, ())
        excess = jnp.mean(x, axis=(1, 2, 3)) - threshold
        return jnp.stack([-excess, excess], axis=-1)


TARGETS = {
    name: Classifier({'params': {'threshold': jnp.float32(threshold)}}, Brightness(), 2)
    for name, threshold in (('low', 0.25), ('high', 0.75))
}


def images(*levels):
    return np.array(levels, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 2, 2, 1), np.uint8)


EXAMPLES = ImageDataset(
    images(0, 128, 255, 100, 200), np.array([0, 0, 1, 1, 1], np.int32), np.arange(50, 0, -10), ('0', '1'), 'toy'
)


@pytest.mark.parametrize('devices', [1, 8])
def test_predictions_of_each_target(devices):
    result = predictions(TARGETS, EXAMPLES, batch_size=2, mesh=sharding.data_mesh(jax.devices()[:devices]))
    assert list(result) == ['low', 'high']
    np.testing.assert_array_equal(result['low'], [0, 1, 1, 1, 1])
    np.testing.assert_array_equal(result['high'], [0, 0, 1, 0, 1])


def test_success_is_a_wrong_class_of_the_adversarial_image():
    mesh = sharding.data_mesh(jax.devices()[:1])
    result = successes(TARGETS, images(100, 128, 10, 255, 100), EXAMPLES, batch_size=2, mesh=mesh)
    np.testing.assert_array_equal(result['low'], [True, True, True, False, False])
    np.testing.assert_array_equal(result['high'], [False, False, True, False, True])
    assert result['low'].dtype == bool


def test_only_examples_that_all_targets_classify_correctly_are_eligible():
    predicted = {'one': np.array([0, 0, 1, 1, 0]), 'other': np.array([0, 1, 1, 1, 1])}
    eligible = eligible_examples(EXAMPLES, predicted, at_most=100)
    np.testing.assert_array_equal(eligible.ids, [50, 30, 20])  # the order of the data set
    np.testing.assert_array_equal(eligible.labels, [0, 1, 1])
    np.testing.assert_array_equal(eligible.images, images(0, 255, 100))
    assert eligible.source == 'toy'


def test_the_first_ones_are_taken():
    predicted = {'one': np.array([1, 0, 1, 1, 1])}
    np.testing.assert_array_equal(eligible_examples(EXAMPLES, predicted, at_most=2).ids, [40, 30])


@pytest.mark.parametrize(
    ('at_most', 'expected'),
    [(1, [0]), (2, [0, 3]), (3, [0, 3, 6]), (4, [0, 1, 3, 6]), (6, [0, 1, 2, 3, 5, 6]), (9, range(7))],
)
def test_balanced_examples_are_taken_from_each_class_in_turn(at_most, expected):
    labels = np.array([2, 2, 2, 0, 2, 0, 1, 1])
    predicted = {'one': np.where(np.arange(8) < 7, labels, 3)}
    found = eligible_positions(labels, predicted, at_most=at_most, source='toy', balanced=True)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ('predicted', 'at_most', 'message'),
    [
        ({'good': [0, 0, 1, 0, 0], 'bad': [1, 1, 0, 1, 0]}, 5, r'the 5 examples of toy .*\(good 60\.0%, bad 20\.0%\)'),
        ({}, 5, 'at least one target'),
        ({'one': EXAMPLES.labels}, 0, 'at least 1, got 0'),
    ],
)
def test_no_target_no_number_and_no_eligible_example_are_errors(predicted, at_most, message):
    predicted = {name: np.array(classes) for name, classes in predicted.items()}
    with pytest.raises(InputError, match=message):
        eligible_examples(EXAMPLES, predicted, at_most=at_most)

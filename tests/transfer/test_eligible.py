import numpy as np
import pytest

from rfn_jax.core.errors import InputError
from rfn_jax.data import ImageDataset
from rfn_jax.transfer import eligible_examples


@pytest.fixture
def examples():
    labels = np.array([0, 1, 2, 0, 1, 2], np.int32)
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    return ImageDataset(images, labels, np.array([50, 40, 30, 20, 10, 0]), ('a', 'b', 'c'), 'toy')


def test_only_examples_that_all_targets_classify_correctly_are_eligible(examples):
    predictions = {'one': np.array([0, 1, 2, 0, 1, 0]), 'other': np.array([0, 1, 1, 0, 1, 2])}
    eligible = eligible_examples(examples, predictions, at_most=100)
    np.testing.assert_array_equal(eligible.ids, [50, 40, 20, 10])  # the order of the data set
    np.testing.assert_array_equal(eligible.labels, [0, 1, 0, 1])
    np.testing.assert_array_equal(eligible.images.ravel(), [0, 1, 3, 4])
    assert eligible.source == 'toy'


def test_the_first_ones_are_taken(examples):
    predictions = {'one': np.array([1, 1, 2, 0, 1, 2])}
    np.testing.assert_array_equal(eligible_examples(examples, predictions, at_most=2).ids, [40, 30])


def test_no_eligible_example_is_an_error_with_the_share_of_each_target(examples):
    predictions = {'good': np.array([0, 1, 2, 1, 2, 0]), 'bad': np.array([1, 2, 0, 0, 0, 0])}
    with pytest.raises(InputError, match=r'none of the 6 examples of toy .*\(good 50\.0%, bad 16\.7%\)'):
        eligible_examples(examples, predictions, at_most=5)


def test_targets_and_a_number_are_needed(examples):
    with pytest.raises(InputError, match='at least one target'):
        eligible_examples(examples, {}, at_most=5)
    with pytest.raises(InputError, match='at least 1, got 0'):
        eligible_examples(examples, {'one': examples.labels}, at_most=0)

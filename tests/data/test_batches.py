import numpy as np
import pytest

from rfn_jax.core.errors import InputError
from rfn_jax.data import ImageDataset, epoch_order, padded_batches


@pytest.mark.parametrize(('examples', 'batch_size'), [(10, 1), (10, 10), (10, 5), (10, 3), (100, 7)])
def test_an_epoch_visits_examples_once(examples, batch_size):
    order = np.asarray(epoch_order(examples, batch_size, seed=0, epoch=0))
    assert order.dtype == np.int32
    assert order.shape == (examples // batch_size, batch_size)
    assert len(np.unique(order)) == order.size
    assert 0 <= order.min() <= order.max() < examples


def test_every_epoch_and_every_seed_has_its_own_order():
    def order(seed, epoch):
        return tuple(np.asarray(epoch_order(100, 10, seed=seed, epoch=epoch)).ravel().tolist())

    orders = {(seed, epoch): order(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len({tuple(range(100)), *orders.values()}) == 7
    assert order(1, 2) == orders[1, 2]
    left_out = {tuple(sorted(set(range(10)) - set(np.ravel(epoch_order(10, 7, seed=0, epoch=e))))) for e in range(5)}
    assert len(left_out) > 1


@pytest.mark.parametrize('batch_size', [0, -1, 11])
def test_batch_sizes_out_of_range_are_refused(batch_size):
    with pytest.raises(InputError, match=f'batch_size must be 1 to 10, .*got {batch_size}'):
        epoch_order(10, batch_size, seed=0, epoch=0)


@pytest.mark.parametrize(
    ('examples', 'batch_size', 'counts'),
    [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 8, [3]), (1, 1, [1]), (9, 8, [8, 1])],
)
def test_padded_batches_hold_every_example_once_and_copies_of_the_last(examples, batch_size, counts):
    images = np.arange(examples, dtype=np.uint8).reshape(-1, 1, 1, 1)
    data = ImageDataset(images, np.arange(examples) % 2, np.arange(examples) + 100, ('a', 'b'), 'toy')
    batches = list(padded_batches(data, batch_size))
    assert [(len(batch.image), count) for batch, count in batches] == [(batch_size, count) for count in counts]
    ids = np.concatenate([batch.id[:count] for batch, count in batches])
    np.testing.assert_array_equal(ids, data.ids)
    for batch, count in batches:
        np.testing.assert_array_equal(batch.image.ravel() + 100, batch.id)
        np.testing.assert_array_equal(batch.id[count:], data.ids[-1])

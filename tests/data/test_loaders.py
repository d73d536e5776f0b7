import jax
import numpy as np
import pytest

from rfn_jax import data
from rfn_jax.core import sharding
from rfn_jax.core.errors import InputError

EXAMPLES = data.SOURCES.make('digits').train.take(np.arange(50))


class Records:
    """The same examples one by one, as from a source that is not in memory."""

    source = 'digits'

    def __init__(self):
        self.taken = []

    def __len__(self):
        return len(EXAMPLES)

    def __getitem__(self, position):
        self.taken.append(position)
        return EXAMPLES[position]


def mesh_of(devices):
    return sharding.data_mesh(jax.devices()[:devices])


def make(kind, devices, seed=3):
    if kind == 'resident':
        return data.ResidentLoader(EXAMPLES, batch_size=16, seed=seed, mesh=mesh_of(devices))
    return data.StreamingLoader(Records(), EXAMPLES.info(), batch_size=16, seed=seed, mesh=mesh_of(devices))


@pytest.mark.parametrize('kind', ['resident', 'streaming'])
@pytest.mark.parametrize(('devices', 'steps_per_call'), [(1, 1), (1, 2), (8, 1), (8, 2), (8, 3)])
def test_batches_are_those_of_the_order_of_the_epoch(kind, devices, steps_per_call):
    loader = make(kind, devices)
    assert (loader.steps_per_epoch, loader.batch_size) == (3, 16)
    order = np.asarray(data.epoch_order(50, 16, seed=3, epoch=2))
    batches = list(loader.epoch(2, steps_per_call=steps_per_call))
    assert len(batches) == -(-3 // steps_per_call)
    rows = steps_per_call > 1
    expected = [order[start : start + steps_per_call] for start in range(0, 3, steps_per_call)]
    for batch, positions in zip(batches, expected, strict=True):
        for name, dtype in (('images', np.uint8), ('labels', np.int32), ('ids', np.uint32)):
            values = getattr(EXAMPLES, name)[positions if rows else positions[0]]
            np.testing.assert_array_equal(getattr(batch, name), values)
            assert getattr(batch, name).dtype == dtype
        shard = batch.images.addressable_shards[0].data
        assert shard.shape[int(rows)] == 16 // devices


@pytest.mark.parametrize('kind', ['resident', 'streaming'])
def test_every_seed_has_its_own_order_and_an_epoch_can_be_asked_for_again(kind):
    first, again, other = (np.concatenate([batch.ids for batch in make(kind, 1, seed).epoch(1)]) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize('kind', ['resident', 'streaming'])
def test_a_loader_with_another_seed_has_its_order_and_the_same_examples(kind):
    first = make(kind, 1)
    other = data.with_seed(first, 4)
    assert (first.seed, other.seed) == (3, 4)
    for loader in (first, other):
        ids = [np.concatenate([b.ids for b in one.epoch(1)]) for one in (loader, make(kind, 1, loader.seed))]
        np.testing.assert_array_equal(*ids)
    if kind == 'resident':
        assert other._whole is first._whole


def test_a_process_reads_only_what_its_devices_need(monkeypatch):
    loader = make('streaming', 2)
    monkeypatch.setattr(sharding, 'local_rows', lambda count, mesh: np.arange(count // 2))
    monkeypatch.setattr(sharding, 'from_local', lambda leaf, placed, count, axis: leaf)
    batches = list(loader.epoch(1))
    order = np.asarray(data.epoch_order(50, 16, seed=3, epoch=1))
    np.testing.assert_array_equal(np.stack([batch.ids for batch in batches]), EXAMPLES.ids[order[:, :8]])
    assert sorted(loader._source.taken) == sorted(order[:, :8].ravel())


def test_small_sets_stay_on_the_devices_and_large_ones_are_streamed(monkeypatch):
    options = {'batch_size': 16, 'seed': 0, 'mesh': mesh_of(1)}
    info = EXAMPLES.info()
    assert isinstance(data.loader(Records(), info, **options), data.ResidentLoader)
    assert isinstance(data.loader(EXAMPLES, info, streaming=True, **options), data.StreamingLoader)
    monkeypatch.setattr('rfn_jax.data.loaders.RESIDENT_BYTES', 50 * 64 - 1)
    assert isinstance(data.loader(Records(), info, **options), data.StreamingLoader)
    assert isinstance(data.loader(Records(), info, streaming=False, **options), data.ResidentLoader)


def test_a_source_is_read_whole_in_its_order():
    read = data.in_memory(Records(), EXAMPLES.info())
    for name in ('images', 'labels', 'ids'):
        np.testing.assert_array_equal(getattr(read, name), getattr(EXAMPLES, name))
    other = data.DataInfo((4, 4, 1), EXAMPLES.class_names, (0.5,), (0.5,))
    for source in (Records(), EXAMPLES):
        with pytest.raises(InputError, match=r'image .*of digits is \[8, 8, 1\], not \[4, 4, 1\]'):
            data.in_memory(source, other)


@pytest.mark.parametrize('streaming', [True, False])
def test_one_image_of_another_shape_is_reported(streaming):
    class Odd(Records):
        def __getitem__(self, position):
            record = super().__getitem__(position)
            return record._replace(image=record.image[:4]) if position == 17 else record

    with pytest.raises(InputError, match=r'image at position 17 of digits is \[4, 8, 1\], not \[8, 8, 1\]') as caught:
        list(data.loader(Odd(), EXAMPLES.info(), batch_size=50, seed=0, mesh=mesh_of(1), streaming=streaming).epoch(1))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('streaming', [True, False])
def test_a_batch_size_above_the_number_of_examples_is_refused(streaming):
    with pytest.raises(InputError, match=r'batch_size must be 1 to 50, .*got 51'):
        data.loader(EXAMPLES, EXAMPLES.info(), batch_size=51, seed=0, mesh=mesh_of(1), streaming=streaming)

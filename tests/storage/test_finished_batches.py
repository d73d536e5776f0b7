import jax
import numpy as np
import pytest

from rfn_jax import attacks, data, storage, transfer
from rfn_jax.core import sharding
from rfn_jax.core.errors import InputError

IDS = np.array([7, 3, 9])
SHAPE = (2, 2, 1)
IMAGES = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2, 1)


def test_a_batch_is_loaded_only_for_the_same_examples_and_origin(tmp_path):
    finished = storage.FinishedBatches(tmp_path / 'parts', {'seed': 1})
    assert finished.load(0, IDS, SHAPE) is None
    finished.save(0, IDS, IMAGES)
    np.testing.assert_array_equal(storage.FinishedBatches(tmp_path / 'parts', {'seed': 1}).load(0, IDS, SHAPE), IMAGES)
    for number, ids in ((1, IDS), (0, IDS[::-1]), (0, IDS[:2])):
        assert finished.load(number, ids, SHAPE) is None
    other = storage.FinishedBatches(tmp_path / 'parts', {'seed': 2})
    assert other.load(0, IDS, SHAPE) is None
    other.save(0, IDS, IMAGES[::-1])  # as by another process with another config
    assert finished.load(0, IDS, SHAPE) is None
    np.testing.assert_array_equal(other.load(0, IDS, SHAPE), IMAGES[::-1])


def test_only_batches_are_deleted(tmp_path):
    (tmp_path / 'thesis.tex').write_text('years of work')
    with pytest.raises(InputError, match=r'holds thesis\.tex, which is not a batch of an adversarial set'):
        storage.FinishedBatches(tmp_path, {})
    assert (tmp_path / 'thesis.tex').exists()
    finished = storage.FinishedBatches(tmp_path / 'parts', {'a': (1, 2)})
    finished.save(0, IDS, IMAGES)
    again = storage.FinishedBatches(tmp_path / 'parts', {'a': (1, 2)})
    np.testing.assert_array_equal(again.load(0, IDS, SHAPE), IMAGES)
    assert finished.load(0, IDS, (4, 1, 1)) is None
    (tmp_path / 'parts' / 'notes.txt').write_text('mine')
    finished.clear()
    assert [path.name for path in (tmp_path / 'parts').iterdir()] == ['notes.txt']


@pytest.mark.parametrize('damage', [b'', b'PK', None])
def test_a_damaged_batch_is_not_loaded(tmp_path, damage):
    finished = storage.FinishedBatches(tmp_path, {})
    finished.save(0, IDS, IMAGES)
    file = tmp_path / '0.npz'
    file.write_bytes(file.read_bytes()[:-30] if damage is None else damage)
    assert finished.load(0, IDS, SHAPE) is None


def test_crafting_resumes_after_the_last_finished_batch(tmp_path):
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(10, 2, 2, 1)).astype(np.uint8)
    finished, crafted, done = storage.FinishedBatches(tmp_path, {}), [], []
    examples = data.ImageDataset(images, np.zeros(10, np.int32), np.arange(10), ('a', 'b'), 'toy')
    weights = generator.normal(size=(4, 2)).astype(np.float32)
    surrogate = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, weights)
    attack, mesh = attacks.pgd(eps=0.2, steps=2), sharding.data_mesh(jax.devices()[:1])

    def craft(**options):
        return transfer.craft_images(attack, surrogate, examples, jax.random.key(0), batch_size=4, mesh=mesh, **options)

    def stop_after_two():
        done.append(None)
        if len(done) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        craft(finished_batches=storage.FinishedBatches(tmp_path, {}), advance=stop_after_two)
    assert sorted(path.name for path in tmp_path.glob('*.npz')) == ['0.npz', '1.npz']
    finished.save = lambda number, ids, images, save=finished.save: (crafted.append(number), save(number, ids, images))
    resumed = craft(finished_batches=finished)
    assert crafted == [2]
    np.testing.assert_array_equal(resumed, craft())

import json
import os

import numpy as np
import pytest

from rfn_jax.core import digests, io
from rfn_jax.core.errors import InputError, RunError
from rfn_jax.storage import AdversarialSet, load_if_made_from
from rfn_jax.storage import load_adversarial_set as load
from rfn_jax.storage import save_adversarial_set as save

ORIGIN = {'source': 'digits', 'seed': 3, 'attack': {'name': 'bim', 'eps': 4 / 255}, 'tags': ['a', None]}


@pytest.fixture
def adversarial():
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(7, 4, 3, 2)).astype(np.uint8)
    return AdversarialSet(images, np.arange(7) * 11, generator.integers(10, size=7).astype(np.int32), ORIGIN)


@pytest.fixture
def saved(adversarial, tmp_path):
    save(adversarial, tmp_path / 'set')
    return tmp_path / 'set'


def rewrite(directory, **changes):
    """Changes arrays of the file, or removes those for which None is given, and updates its hash."""
    with np.load(directory / 'adversarial.npz') as file:
        arrays = {name: file[name] for name in file.files if name != 'sha256'} | changes
    arrays = {name: array for name, array in arrays.items() if array is not None}
    content = io.npz_bytes(**arrays, sha256=np.array(digests.of_arrays(arrays)))
    (directory / 'adversarial.npz').write_bytes(content)


def test_a_saved_set_is_loaded_unchanged(adversarial, saved):
    loaded = load(saved)
    for name in ('images', 'ids', 'labels'):
        expected, value = getattr(adversarial, name), getattr(loaded, name)
        assert value.dtype == expected.dtype
        np.testing.assert_array_equal(value, expected)
    assert loaded.origin == ORIGIN


def test_a_set_is_one_file_that_numpy_reads(adversarial, saved):
    assert [path.name for path in saved.iterdir()] == ['adversarial.npz']
    with np.load(saved / 'adversarial.npz', allow_pickle=False) as file:
        assert sorted(file.files) == ['ids', 'images', 'labels', 'origin', 'sha256']
        np.testing.assert_array_equal(file['images'], adversarial.images)
        assert json.loads(str(file['origin'])) == ORIGIN


def test_saving_again_replaces_the_set(adversarial, saved):
    other = AdversarialSet(255 - adversarial.images, adversarial.ids, adversarial.labels, {'seed': 4})
    save(other, saved)
    np.testing.assert_array_equal(load(saved).images, 255 - adversarial.images)
    assert load(saved).origin == {'seed': 4}
    assert [path.name for path in saved.iterdir()] == ['adversarial.npz']


@pytest.mark.parametrize('step', [1, 2])
def test_a_set_that_grows_is_the_old_or_the_new_one_wherever_saving_stops(adversarial, tmp_path, monkeypatch, step):
    some = AdversarialSet(adversarial.images[:4], adversarial.ids[:4], adversarial.labels[:4], ORIGIN)
    save(some, tmp_path)
    replace, done = os.replace, []

    def stop_at(source, destination):  # the process stops before its `step`-th file is in place
        done.append(destination)
        if len(done) == step:
            raise OSError('stopped')
        replace(source, destination)

    monkeypatch.setattr(os, 'replace', stop_at)
    if step == 1:
        with pytest.raises(RunError, match=r'could not write .*adversarial\.npz: stopped'):
            save(adversarial, tmp_path)
        np.testing.assert_array_equal(load(tmp_path).images, some.images)
    else:
        save(adversarial, tmp_path)
        np.testing.assert_array_equal(load(tmp_path).images, adversarial.images)
    assert [path.name for path in tmp_path.iterdir()] == ['adversarial.npz']


@pytest.mark.parametrize('change', [{'images': np.zeros((7, 4, 3, 2), np.uint8)}, {'origin': np.array('{}')}])
def test_a_changed_file_is_refused(saved, change):
    with np.load(saved / 'adversarial.npz') as file:
        (saved / 'adversarial.npz').write_bytes(io.npz_bytes(**{**file, **change}))
    with pytest.raises(InputError, match=r'adversarial\.npz is damaged: its SHA-256 is not .*; delete it and make it'):
        load(saved)


@pytest.mark.parametrize('keep', [0, 3, 100, -1])
def test_a_truncated_file_is_refused(saved, keep):
    (saved / 'adversarial.npz').write_bytes((saved / 'adversarial.npz').read_bytes()[:keep])
    with pytest.raises(InputError, match=r'adversarial\.npz is damaged'):
        load(saved)


def test_flipped_bytes_are_refused(saved):
    content = bytearray((saved / 'adversarial.npz').read_bytes())
    content[60:70] = bytes(10)
    (saved / 'adversarial.npz').write_bytes(bytes(content))
    with pytest.raises(InputError, match=r'adversarial\.npz is damaged'):
        load(saved)


class Trap:
    def __reduce__(self):
        return pytest.fail, ('the archive was unpickled',)


def test_pickled_objects_are_refused_and_never_unpickled(adversarial, saved):
    images = np.array([Trap()], dtype=object)
    with (saved / 'adversarial.npz').open('wb') as file:
        np.savez(file, images=images, ids=adversarial.ids, labels=adversarial.labels, origin='{}', sha256='')
    with pytest.raises(InputError, match='allow_pickle=False'):
        load(saved)


@pytest.mark.parametrize('name', ['images', 'ids', 'labels', 'origin'])
def test_a_missing_array_is_refused(saved, name):
    rewrite(saved, **{name: None})
    with pytest.raises(InputError, match=f'adversarial.npz is damaged: .*{name}'):
        load(saved)


def test_a_missing_file_is_named(saved):
    (saved / 'adversarial.npz').unlink()
    with pytest.raises(InputError, match=r'could not read .*adversarial\.npz.*No such file'):
        load(saved)


def test_an_origin_that_is_not_json_is_refused(saved):
    rewrite(saved, origin=np.array('{'))
    with pytest.raises(InputError, match=r'adversarial\.npz is damaged'):
        load(saved)


def test_a_set_made_from_something_else_is_not_used(saved, tmp_path):
    assert load_if_made_from(saved, ORIGIN).origin == ORIGIN
    assert load_if_made_from(saved, ORIGIN | {'seed': 4}) is None
    assert load_if_made_from(saved, {key: value for key, value in ORIGIN.items() if key != 'seed'}) is None
    assert load_if_made_from(tmp_path / 'nowhere', ORIGIN) is None
    content = (saved / 'adversarial.npz').read_bytes()
    (saved / 'adversarial.npz').write_bytes(content[:-1])
    assert load_if_made_from(saved, ORIGIN) is None


def test_images_are_found_by_their_ids(adversarial):
    np.testing.assert_array_equal(adversarial.images_for(np.array([55, 0, 66])), adversarial.images[[5, 0, 6]])
    assert adversarial.images_for(np.array([], np.int64)).shape == (0, 4, 3, 2)
    for missing in ([0, 5], [77], [-1]):
        assert adversarial.images_for(np.array(missing)) is None


def test_merging_adds_what_is_missing_and_keeps_existing_images(adversarial):
    first = AdversarialSet(adversarial.images[[4, 1]], adversarial.ids[[4, 1]], adversarial.labels[[4, 1]], ORIGIN)
    other = AdversarialSet(255 - adversarial.images, adversarial.ids, adversarial.labels, {'other': True})
    merged = first.merge(other)
    assert merged.origin == ORIGIN
    np.testing.assert_array_equal(merged.ids, adversarial.ids)
    np.testing.assert_array_equal(merged.labels, adversarial.labels)
    kept = np.isin(adversarial.ids, first.ids)
    np.testing.assert_array_equal(merged.images[kept], adversarial.images[kept])
    np.testing.assert_array_equal(merged.images[~kept], 255 - adversarial.images[~kept])

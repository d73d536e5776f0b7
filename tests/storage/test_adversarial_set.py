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


def part(adversarial, rows):
    return AdversarialSet(adversarial.images[rows], adversarial.ids[rows], adversarial.labels[rows], ORIGIN)


def inverted(adversarial, origin):
    return AdversarialSet(255 - adversarial.images, adversarial.ids, adversarial.labels, origin)


@pytest.fixture
def saved(adversarial, tmp_path):
    save(adversarial, tmp_path / 'set')
    return tmp_path / 'set'


@pytest.fixture
def file(saved):
    return saved / 'adversarial.npz'


def assert_same(loaded, expected):
    for name in ('images', 'ids', 'labels'):
        assert getattr(loaded, name).dtype == getattr(expected, name).dtype
        np.testing.assert_array_equal(getattr(loaded, name), getattr(expected, name))
    assert loaded.origin == expected.origin


def test_a_saved_set_is_loaded_unchanged_from_one_file_that_numpy_reads(adversarial, saved, file):
    assert_same(load(saved), adversarial)
    assert list(saved.iterdir()) == [file]
    with np.load(file, allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ['ids', 'images', 'labels', 'origin', 'sha256']
        np.testing.assert_array_equal(arrays['images'], adversarial.images)
        assert json.loads(str(arrays['origin'])) == ORIGIN


@pytest.mark.parametrize('step', [1, 2])
def test_saving_again_gives_the_old_or_the_new_set_wherever_it_stops(adversarial, saved, file, monkeypatch, step):
    other = inverted(part(adversarial, slice(4)), {'seed': 4})
    replace, done = os.replace, []

    def stop_at(source, destination):  # the process stops before its `step`-th file is in place
        done.append(destination)
        if len(done) == step:
            raise OSError('stopped')
        replace(source, destination)

    monkeypatch.setattr(os, 'replace', stop_at)
    if step == 1:
        with pytest.raises(RunError, match=r'could not write .*adversarial\.npz: stopped'):
            save(other, saved)
    else:
        save(other, saved)
    assert_same(load(saved), adversarial if step == 1 else other)
    assert list(saved.iterdir()) == [file]


def cut(keep):
    return lambda file, arrays: file.write_bytes(file.read_bytes()[:keep])


def flip_bytes(file, arrays):
    content = bytearray(file.read_bytes())
    content[60:70] = bytes(10)
    file.write_bytes(bytes(content))


def replaced(*, rehash=True, **changes):
    """Changes arrays of the file, or removes those for which None is given, and perhaps updates its hash."""

    def rewrite(file, arrays):
        changed = {k: v for k, v in {**arrays, **changes}.items() if v is not None and not (rehash and k == 'sha256')}
        digest = {'sha256': np.array(digests.of_arrays(changed))} if rehash else {}
        file.write_bytes(io.npz_bytes(**changed, **digest))

    return rewrite


class Trap:
    def __reduce__(self):
        return pytest.fail, ('the archive was unpickled',)


def set_a_trap(file, arrays):
    np.savez(file, **{**arrays, 'images': np.array([Trap()], dtype=object)})


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (
            replaced(rehash=False, images=np.zeros((7, 4, 3, 2), np.uint8)),
            'its SHA-256 is not .*; delete it and make it',
        ),
        (replaced(rehash=False, origin=np.array('{}')), 'its SHA-256 is not .*; delete it and make it'),
        *((cut(keep), '') for keep in (0, 3, 100, -1)),
        (flip_bytes, ''),
        (set_a_trap, '.*allow_pickle=False'),
        *((replaced(**{name: None}), f'.*{name}') for name in ('images', 'ids', 'labels', 'origin')),
        (replaced(origin=np.array('{')), ''),  # not JSON
    ],
)
def test_a_damaged_file_is_refused_and_never_unpickled(saved, file, damage, message):
    with np.load(file) as arrays:
        arrays = dict(arrays)
    damage(file, arrays)
    with pytest.raises(InputError, match=rf'adversarial\.npz is damaged: {message}'):
        load(saved)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r'could not read .*adversarial\.npz.*No such file'):
        load(tmp_path)


def test_a_set_made_from_something_else_is_not_used(saved, file, tmp_path):
    assert load_if_made_from(saved, ORIGIN).origin == ORIGIN
    assert load_if_made_from(saved, ORIGIN | {'seed': 4}) is None
    assert load_if_made_from(saved, {key: value for key, value in ORIGIN.items() if key != 'seed'}) is None
    assert load_if_made_from(tmp_path / 'nowhere', ORIGIN) is None
    cut(-1)(file, {})
    assert load_if_made_from(saved, ORIGIN) is None


def test_images_are_found_by_their_ids(adversarial):
    np.testing.assert_array_equal(adversarial.images_for(np.array([55, 0, 66])), adversarial.images[[5, 0, 6]])
    assert adversarial.images_for(np.array([], np.int64)).shape == (0, 4, 3, 2)
    for missing in ([0, 5], [77], [-1]):
        assert adversarial.images_for(np.array(missing)) is None


def test_merging_adds_what_is_missing_and_keeps_existing_images(adversarial):
    merged = part(adversarial, [4, 1]).merge(inverted(adversarial, {'other': True}))
    kept = np.isin(np.arange(7), [4, 1])[:, None, None, None]
    images = np.where(kept, adversarial.images, 255 - adversarial.images)
    assert_same(merged, AdversarialSet(images, adversarial.ids, adversarial.labels, ORIGIN))

import hashlib
import io
import json

import numpy as np
import pytest

from rfn_jax.core.errors import InputError
from rfn_jax.storage import AdversarialSet, load_made_from
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


def replace_archive(directory, content):
    """Puts other bytes in place of the archive, with the right hash in the manifest."""
    (directory / 'adversarial.npz').write_bytes(content)
    manifest = json.loads((directory / 'manifest.json').read_text())
    manifest['sha256'] = hashlib.sha256(content).hexdigest()
    (directory / 'manifest.json').write_text(json.dumps(manifest))


def test_a_saved_set_is_loaded_as_it_was(adversarial, saved):
    loaded = load(saved)
    for name in ('images', 'ids', 'labels'):
        expected, value = getattr(adversarial, name), getattr(loaded, name)
        assert value.dtype == expected.dtype
        np.testing.assert_array_equal(value, expected)
    assert loaded.origin == ORIGIN


def test_the_manifest_has_the_origin_and_the_hash_of_the_archive(saved):
    manifest = json.loads((saved / 'manifest.json').read_text())
    digest = hashlib.sha256((saved / 'adversarial.npz').read_bytes()).hexdigest()
    assert manifest == {'origin': ORIGIN, 'sha256': digest}


def test_saving_again_replaces_the_set(adversarial, saved):
    other = AdversarialSet(255 - adversarial.images, adversarial.ids, adversarial.labels, {'seed': 4})
    save(other, saved)
    np.testing.assert_array_equal(load(saved).images, 255 - adversarial.images)
    assert sorted(path.name for path in saved.iterdir()) == ['adversarial.npz', 'manifest.json']


def test_a_changed_archive_is_refused(adversarial, saved, tmp_path):
    save(AdversarialSet(255 - adversarial.images, adversarial.ids, adversarial.labels, ORIGIN), tmp_path / 'other')
    (saved / 'adversarial.npz').write_bytes((tmp_path / 'other' / 'adversarial.npz').read_bytes())
    with pytest.raises(InputError, match=r'adversarial\.npz: its SHA-256 is not the one in manifest\.json'):
        load(saved)


def test_a_truncated_archive_is_refused(saved):
    content = (saved / 'adversarial.npz').read_bytes()
    (saved / 'adversarial.npz').write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match='SHA-256'):
        load(saved)


@pytest.mark.parametrize('keep', [0, 3, 100, -1])
def test_a_truncated_archive_is_refused_even_with_its_own_hash(saved, keep):
    replace_archive(saved, (saved / 'adversarial.npz').read_bytes()[:keep])
    with pytest.raises(InputError, match=r'could not read .*adversarial\.npz'):
        load(saved)


def test_a_damaged_archive_is_refused_even_with_its_own_hash(saved):
    content = bytearray((saved / 'adversarial.npz').read_bytes())
    content[60:70] = bytes(10)
    replace_archive(saved, bytes(content))
    with pytest.raises(InputError, match=r'could not read .*adversarial\.npz'):
        load(saved)


class Trap:
    def __reduce__(self):
        return pytest.fail, ('the archive was unpickled',)


def test_pickled_objects_are_refused_and_never_unpickled(adversarial, saved):
    content = io.BytesIO()
    np.savez(content, images=np.array([Trap()], dtype=object), ids=adversarial.ids, labels=adversarial.labels)
    replace_archive(saved, content.getvalue())
    with pytest.raises(InputError, match='allow_pickle=False'):
        load(saved)


def test_a_missing_array_is_refused(adversarial, saved):
    content = io.BytesIO()
    np.savez(content, images=adversarial.images, ids=adversarial.ids)
    replace_archive(saved, content.getvalue())
    with pytest.raises(InputError, match='labels'):
        load(saved)


@pytest.mark.parametrize('name', ['adversarial.npz', 'manifest.json'])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(InputError, match=f'could not read .*{name}.*No such file'):
        load(saved)


@pytest.mark.parametrize('text', ['{', '[]', '3', '{"sha256": "00"}', '{}'])
def test_a_damaged_manifest_is_refused(saved, text):
    (saved / 'manifest.json').write_text(text)
    with pytest.raises(InputError, match='set'):
        load(saved)


def test_a_set_made_from_something_else_is_not_taken(saved, tmp_path):
    assert load_made_from(saved, ORIGIN).origin == ORIGIN
    assert load_made_from(saved, ORIGIN | {'seed': 4}) is None
    assert load_made_from(saved, {key: value for key, value in ORIGIN.items() if key != 'seed'}) is None
    assert load_made_from(tmp_path / 'nowhere', ORIGIN) is None
    content = (saved / 'adversarial.npz').read_bytes()
    (saved / 'adversarial.npz').write_bytes(content[:-1])
    assert load_made_from(saved, ORIGIN) is None


def test_images_are_found_by_their_ids(adversarial):
    np.testing.assert_array_equal(adversarial.of_ids(np.array([55, 0, 66])), adversarial.images[[5, 0, 6]])
    assert adversarial.of_ids(np.array([], np.int64)).shape == (0, 4, 3, 2)
    for missing in ([0, 5], [77], [-1]):
        assert adversarial.of_ids(np.array(missing)) is None


def test_a_set_grows_by_what_is_missing_and_keeps_what_it_has(adversarial):
    first = AdversarialSet(adversarial.images[[4, 1]], adversarial.ids[[4, 1]], adversarial.labels[[4, 1]], ORIGIN)
    other = AdversarialSet(255 - adversarial.images, adversarial.ids, adversarial.labels, {'other': True})
    united = first.united(other)
    assert united.origin == ORIGIN
    np.testing.assert_array_equal(united.ids, adversarial.ids)
    np.testing.assert_array_equal(united.labels, adversarial.labels)
    kept = np.isin(adversarial.ids, first.ids)
    np.testing.assert_array_equal(united.images[kept], adversarial.images[kept])
    np.testing.assert_array_equal(united.images[~kept], 255 - adversarial.images[~kept])

import json
import shutil

import jax
import numpy as np
import pytest

from rfn_jax import models, training
from rfn_jax.core import errors, rng

SPEC = {'name': 'resnet', 'stage_sizes': [1], 'widths': [4]}
SHAPE = (8, 8, 3)


@pytest.fixture
def classifier():
    module = models.MODELS.make_from(SPEC, num_classes=5)
    key = rng.key_for(0, 'initialise')
    return models.initialise(module, key, SHAPE, num_classes=5, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


@pytest.fixture
def directory(classifier, tmp_path):
    training.save_weights(tmp_path / 'w', classifier, model=SPEC, image_shape=SHAPE, origin={'file': 'x.pth'})
    return tmp_path / 'w'


def test_what_was_saved_is_loaded(classifier, directory):
    loaded = training.load_weights(directory)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, classifier.variables)
    assert (loaded.mean, loaded.std, loaded.num_classes) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 5)
    assert loaded.module == classifier.module
    found = training.read_weights(directory)
    assert (found.model, found.image_shape, found.origin) == (SPEC, SHAPE, {'file': 'x.pth'})
    with training.open_weights(directory) as store:
        assert store.epochs() == [training.IMPORTED_EPOCH]
        assert store.digest(training.IMPORTED_EPOCH) == found.variables_sha256


@pytest.mark.parametrize('change', [{'mean': (0.5,)}, {'std': (0.5,)}, {'variables': 1.5}, {}])
def test_the_hash_is_of_all_that_decides_on_the_logits(classifier, directory, change):
    other = classifier.replace(**{name: value for name, value in change.items() if name != 'variables'})
    if 'variables' in change:
        other = other.replace(variables=jax.tree.map(lambda x: x * 1.5, classifier.variables))
    saved = training.save_weights(
        directory.parent / 'other', other, model=SPEC, image_shape=SHAPE, origin={'file': 'y.pth'}
    )
    assert (saved.sha256 == training.read_weights(directory).sha256) == (not change)
    assert training.read_weights(directory.parent / 'other').sha256 == saved.sha256


def test_the_checkpoint_of_another_directory_is_told(classifier, directory):
    other = classifier.replace(variables=jax.tree.map(lambda x: x * 1.5, classifier.variables))
    training.save_weights(directory.parent / 'other', other, model=SPEC, image_shape=SHAPE, origin={})
    shutil.rmtree(directory / 'checkpoints')
    shutil.copytree(directory.parent / 'other' / 'checkpoints', directory / 'checkpoints')
    for read in (training.load_weights, training.open_weights, training.abstract_weights):
        with pytest.raises(errors.RunError, match=r'has variables of SHA-256 .*, and its weights.json says'):
            read(directory)


def test_positions_are_for_one_size_of_images(tmp_path):
    spec = {'name': 'vit', 'patch_size': 4, 'width': 8, 'depth': 1, 'heads': 2, 'mlp_width': 8}
    key = rng.key_for(0, 'initialise')
    vit = models.initialise(models.MODELS.make_from(spec, num_classes=5), key, (8, 8, 3), num_classes=5)
    training.save_weights(tmp_path / 'vit', vit, model=spec, image_shape=(8, 8, 3), origin={})
    message = r'were made for images of shape \(8, 8, 3\), and do not fit those of \(16, 16, 3\): .*positions'
    with pytest.raises(errors.InputError, match=message):
        training.abstract_weights(tmp_path / 'vit', image_shape=(16, 16, 3))


def test_other_images_fit_where_no_variable_depends_on_them(classifier, directory):
    assert training.load_weights(directory, image_shape=(16, 12, 3)).module == classifier.module
    with pytest.raises(errors.InputError, match='must have one value for all channels or one for each of the 1'):
        training.load_weights(directory, image_shape=(8, 8, 1))


def test_a_directory_that_holds_something_is_left_alone(classifier, directory):
    before = sorted(directory.rglob('*'))
    with pytest.raises(errors.InputError, match='is there already; choose another directory'):
        training.save_weights(directory, classifier, model=SPEC, image_shape=SHAPE, origin={})
    assert sorted(directory.rglob('*')) == before
    (directory.parent / 'empty').mkdir()
    training.save_weights(directory.parent / 'empty', classifier, model=SPEC, image_shape=SHAPE, origin={})
    assert training.read_weights(directory.parent / 'empty').sha256 == training.read_weights(directory).sha256


def test_nothing_is_left_of_a_save_that_failed(classifier, tmp_path):
    with pytest.raises(errors.InputError, match='model and origin of weights may hold only plain values'):
        training.save_weights(tmp_path / 'w', classifier, model=SPEC, image_shape=SHAPE, origin={'file': object()})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / 'file').write_text('')
    with pytest.raises(errors.RunError, match=r'could not write .*: (Not a directory|File exists)'):
        training.save_weights(tmp_path / 'file' / 'w', classifier, model=SPEC, image_shape=SHAPE, origin={})


def test_damage_is_told(directory):
    with pytest.raises(errors.InputError, match=r'holds no imported weights .*; make it with rfn-jax import-weights'):
        training.read_weights(directory.parent)
    path = directory / 'weights.json'
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, 'model': {'name': 'resnet', 'stage_sizes': [1], 'widths': [8]}}))
    with pytest.raises(errors.InputError, match='is of another model'):
        training.load_weights(directory)
    for damaged in ({**found, 'mean': 5}, {**found, 'more': 1}, [1], {k: v for k, v in found.items() if k != 'std'}):
        path.write_text(json.dumps(damaged))
        with pytest.raises(errors.InputError, match=r'weights.json is damaged: '):
            training.read_weights(directory)


def test_flipped_bits_are_told(directory):
    variables = directory / 'checkpoints' / str(training.IMPORTED_EPOCH) / 'variables'
    for path in (path for path in variables.rglob('d/*') if path.is_file()):
        content = bytearray(path.read_bytes())
        content[len(content) // 4 :: 16] = b'x' * len(content[len(content) // 4 :: 16])
        path.write_bytes(content)
    with pytest.raises(errors.RunError, match='could not read checkpoint'):
        training.load_weights(directory)

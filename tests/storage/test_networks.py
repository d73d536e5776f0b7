import json
import pathlib
import shutil

import jax
import numpy as np
import optax
import pytest

import rfn_jax
from rfn_jax import models, storage, training
from rfn_jax.core import errors, rng
from rfn_jax.storage import description, networks

SPEC = {'name': 'resnet', 'stage_sizes': [1], 'widths': [4]}
SHAPE = (8, 8, 3)


def save(directory, classifier, architecture=SPEC, image_shape=SHAPE, **origin):
    return storage.save_network(
        directory, classifier, architecture=architecture, image_shape=image_shape, origin=origin
    )


def sha256(directory):
    network = storage.read_network(directory)
    return network.sha256(network.variables_sha256)


@pytest.fixture
def classifier():
    module = models.MODELS.make_from(SPEC, num_classes=5)
    key = rng.key_for(0, 'initialize')
    return models.initialize(module, key, SHAPE, num_classes=5, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


@pytest.fixture
def directory(classifier, tmp_path):
    save(tmp_path / 'w', classifier, file='x.pth')
    return tmp_path / 'w'


def test_what_was_saved_is_loaded(classifier, directory):
    loaded = rfn_jax.load(directory)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, classifier.variables)
    assert (loaded.mean, loaded.std, loaded.num_classes) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 5)
    assert loaded.module == classifier.module
    found = storage.read_network(directory)
    assert (found.architecture, found.image_shape, found.origin) == (SPEC, SHAPE, {'file': 'x.pth'})
    store, epoch = storage.open_checkpoint(directory)
    assert store.epochs() == [networks.IMPORTED_EPOCH] == [epoch]
    assert store.digest(epoch) == found.variables_sha256


def scaled(classifier, factor):
    return classifier.replace(variables=jax.tree.map(lambda x: x * factor, classifier.variables))


@pytest.mark.parametrize('change', [{'mean': (0.5,)}, {'std': (0.5,)}, {'factor': 1.5}, {}])
def test_the_hash_covers_everything_that_determines_the_logits(classifier, directory, change):
    other = scaled(classifier, 1.5) if 'factor' in change else classifier.replace(**change)
    saved = save(directory.parent / 'other', other, file='y.pth')
    assert (saved.sha256(saved.variables_sha256) == sha256(directory)) == (not change)
    assert sha256(directory.parent / 'other') == saved.sha256(saved.variables_sha256)


def test_the_checkpoint_of_another_directory_is_reported(classifier, directory):
    save(directory.parent / 'other', scaled(classifier, 1.5))
    shutil.rmtree(directory / 'checkpoints')
    shutil.copytree(directory.parent / 'other' / 'checkpoints', directory / 'checkpoints')
    for read in (rfn_jax.load, storage.template):
        with pytest.raises(errors.RunError, match=r'has variables of SHA-256 .*, but its network.json says'):
            read(directory)


def test_image_sizes_on_which_a_variable_depends_are_refused(classifier, directory, tmp_path):
    assert rfn_jax.load(directory, image_shape=(16, 12, 3)).module == classifier.module
    with pytest.raises(errors.InputError, match='must have one value for all channels or one for each of the 1'):
        rfn_jax.load(directory, image_shape=(8, 8, 1))
    spec = {'name': 'vit', 'patch_size': 4, 'width': 8, 'depth': 1, 'heads': 2, 'mlp_width': 8}
    vit = models.abstract(models.MODELS.make_from(spec, num_classes=5), SHAPE, num_classes=5)
    save(
        tmp_path / 'vit', vit.replace(variables=jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), vit.variables)), spec
    )
    message = r'was made for images of shape \(8, 8, 3\), and does not accept .* \(16, 16, 3\): .*positions'
    with pytest.raises(errors.InputError, match=message):
        storage.template(tmp_path / 'vit', image_shape=(16, 16, 3))


def test_a_directory_that_is_not_empty_is_left_alone(classifier, directory):
    before = contents(directory)
    with pytest.raises(errors.InputError, match='already exists; choose another directory'):
        save(directory, classifier)
    assert contents(directory) == before
    (directory.parent / 'empty').mkdir()
    save(directory.parent / 'empty', classifier)
    assert sha256(directory.parent / 'empty') == sha256(directory)


def test_a_failed_save_leaves_nothing_behind(classifier, tmp_path):
    with pytest.raises(errors.InputError, match='architecture and origin of a network may hold only plain values'):
        save(tmp_path / 'w', classifier, file=object())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / 'file').write_text('')
    with pytest.raises(errors.RunError, match=r'could not write .*: (Not a directory|File exists)'):
        save(tmp_path / 'file' / 'w', classifier)


def test_damage_is_reported(directory):
    with pytest.raises(errors.InputError, match=r'is not a network directory .*rfn-jax import-weights make one'):
        storage.read_network(directory.parent)
    path = directory / 'network.json'
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, 'architecture': {'name': 'resnet', 'stage_sizes': [1], 'widths': [8]}}))
    with pytest.raises(errors.InputError, match='belongs to another model'):
        rfn_jax.load(directory)
    less = {name: value for name, value in found.items() if name != 'std'}
    message = r'network\.json (is damaged|must hold a JSON object).*; delete it and run'
    for damaged in ({**found, 'more': 1}, less, [1], 5, None):
        path.write_text(json.dumps(damaged))
        with pytest.raises(errors.InputError, match=message):
            storage.read_network(directory)
    path.unlink()
    with pytest.raises(errors.InputError, match=r'has checkpoints but no network\.json, .* import the network again'):
        rfn_jax.load(directory)


@pytest.mark.parametrize(
    ('name', 'values', 'message'),
    [
        ('image_shape', ['abc', [32], [8, 8, -3], [8, 8, 3.0], 5, None, [8, 8, 3, 3]], r'image_shape must be \(H, W, C\)'),
        ('mean', [5, None, 'abc', ['a'], [], [0.1, 0.2], [float('nan')] * 3], 'mean must be '),
        ('std', [[0, 0, 0], [-1.0], {}], 'std must be '),
        ('num_classes', [0, '5', 5.0, None, True], 'num_classes must be an integer of at least 1'),
        ('class_names', ['abc', 5, [1, 2, 3, 4, 5], ['a']], 'class_names must be '),
        ('architecture', [None, [], 'resnet'], 'architecture must be a mapping'),
        ('origin', [None, 'x'], 'origin must be a mapping'),
        ('variables_sha256', [5, []], 'variables_sha256 must be a string'),
    ],
)  # fmt: skip
def test_each_wrong_value_is_reported_with_the_file_and_the_remedy(directory, name, values, message):
    path = directory / 'network.json'
    found = json.loads(path.read_text())
    for value in values:
        path.write_text(json.dumps({**found, name: value}))
        whole = rf'network\.json is damaged: {message}.*; delete it and run'
        with pytest.raises(errors.InputError, match=whole) as caught:
            rfn_jax.load(directory)
        assert '\n' not in str(caught.value)


@pytest.mark.parametrize('path', [None, 5, b'x', []])
def test_a_value_that_is_not_a_path_is_refused(path):
    with pytest.raises(TypeError, match='a path must be a string or a path object, got') as caught:
        rfn_jax.load(path)
    assert isinstance(caught.value, errors.InputError)


@pytest.mark.parametrize('shape', [5, 'abc', (32,), (8, 8, 0), (8, 8, 3.0), (8, 8, 3, 1)])
def test_a_value_that_is_not_an_image_shape_is_refused(classifier, directory, shape):
    with pytest.raises(errors.InputError, match=r'^image_shape must be \(H, W, C\), three integers of at least 1, got'):
        rfn_jax.load(directory, image_shape=shape)
    with pytest.raises(errors.InputError, match=r'^image_shape must be'):
        save(directory.parent / 'other', classifier, image_shape=shape)


def contents(directory):
    return {path: (path.stat().st_mtime_ns, path.is_dir() or path.read_bytes()) for path in directory.rglob('*')}


def test_reading_changes_nothing(classifier, tmp_path):
    description.write(tmp_path, storage.Network.of(classifier, architecture=SPEC, image_shape=SHAPE))
    with training.CheckpointStore(tmp_path / 'checkpoints') as store:
        for epoch in (1, 2, 3):  # each with the state of the optimizer
            store.save(epoch, training.create(classifier, optax.sgd(0.1, momentum=0.9)))
    before = contents(tmp_path)
    rfn_jax.load(tmp_path)
    storage.template(tmp_path, 1, image_shape=(16, 12, 3))
    storage.read_network(tmp_path)
    store, _ = storage.open_checkpoint(tmp_path, 2)
    store.digest(2)
    assert contents(tmp_path) == before


def test_flipped_bits_are_reported(directory):
    variables = directory / 'checkpoints' / str(networks.IMPORTED_EPOCH) / 'variables'
    for path in filter(pathlib.Path.is_file, variables.rglob('d/*')):
        content = bytearray(path.read_bytes())
        content[len(content) // 4 :: 16] = b'x' * len(content[len(content) // 4 :: 16])
        path.write_bytes(content)
    with pytest.raises(errors.RunError, match='could not read checkpoint'):
        rfn_jax.load(directory)


@pytest.mark.parametrize('name', ['weights.json', 'classifier.json'])
def test_directories_of_earlier_versions_are_refused(tmp_path, name):
    (tmp_path / name).write_text('{}')
    with pytest.raises(errors.InputError, match='was made by an earlier version of rfn_jax'):
        rfn_jax.load(tmp_path)


def test_a_network_in_training_has_the_epochs_saved_so_far(classifier, tmp_path):
    description.write(tmp_path, storage.Network.of(classifier, architecture=SPEC, image_shape=SHAPE))
    with pytest.raises(errors.InputError, match='has no checkpoint yet; train it first'):
        rfn_jax.load(tmp_path)
    with training.CheckpointStore(tmp_path / 'checkpoints', keep_all=True) as store:
        for epoch in (1, 2):
            variables = scaled(classifier, epoch).variables
            store.save(epoch, training.TrainState(np.int32(0), variables['params'], variables['batch_stats'], ()))
    for epoch, factor in ((None, 2), (1, 1), (2, 2)):
        found = rfn_jax.load(tmp_path, epoch).variables['params']['fc']['kernel']
        np.testing.assert_array_equal(found, factor * classifier.variables['params']['fc']['kernel'])
    with pytest.raises(errors.InputError, match=r'has no checkpoint of epoch 3, only of \[1, 2\]'):
        rfn_jax.load(tmp_path, 3)

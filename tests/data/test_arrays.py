import pathlib
import zipfile

import numpy as np
import pytest

from rfn_jax import data
from rfn_jax.core.errors import InputError
from rfn_jax.data import SOURCES

RNG = np.random.default_rng(0)


def split(count, *, classes=3):
    images = RNG.integers(256, size=(count, 4, 5, 3), dtype=np.uint8)
    return images, np.arange(count) % classes


def write(path, *, names='{}_images {}_labels', parts=('train', 'test'), counts=(30, 12), **more):
    arrays = {}
    for part, count in zip(parts, counts, strict=True):
        for name, array in zip(names.split(), split(count), strict=True):
            arrays[name.format(part)] = array
    np.savez(path, **{**arrays, **more})
    return str(path), arrays


@pytest.mark.parametrize('names', ['{}_images {}_labels', 'x_{} y_{}'])
def test_the_last_training_examples_are_for_validation(tmp_path, names):
    path, arrays = write(tmp_path / 'data.npz', names=names)
    splits = SOURCES.make('arrays', path=path)
    parts = (splits.train, splits.validation, splits.test)
    images, labels = (arrays[name.format('train')] for name in names.split())
    assert [len(part) for part in parts] == [27, 3, 12]
    np.testing.assert_array_equal(splits.train.images, images[:27])
    np.testing.assert_array_equal(splits.validation.images, images[27:])
    np.testing.assert_array_equal(splits.validation.labels, labels[27:])
    np.testing.assert_array_equal(splits.validation.ids, [27, 28, 29])
    assert splits.train.labels.dtype == np.int32
    assert [part.source for part in parts] == ['data.npz/train', 'data.npz/train', 'data.npz/test']
    assert splits.train.class_names == ('0', '1', '2')
    fewer = SOURCES.make('arrays', path=path, train_examples=5, validation_examples=4, test_examples=2)
    ids = [part.ids.tolist() for part in (fewer.train, fewer.validation, fewer.test)]
    assert ids == [[0, 1, 2, 3, 4], [26, 27, 28, 29], [0, 1]]


def test_a_file_with_validation_examples_keeps_all_training_examples(tmp_path):
    path, arrays = write(tmp_path / 'data.npz', parts=('train', 'val', 'test'), counts=(30, 9, 12))
    splits = SOURCES.make('arrays', path=path)
    assert len(splits.train) == 30
    np.testing.assert_array_equal(splits.validation.images, arrays['val_images'])
    assert splits.validation.source == 'data.npz/validation'
    assert len(SOURCES.make('arrays', path=path, validation_examples=4).validation) == 4


def test_gray_images_columns_of_labels_and_names_of_classes(tmp_path):
    images, labels = split(10)
    more = {
        'train_images': images[..., 0],
        'train_labels': labels[:, None].astype(np.uint8),
        'test_images': split(12)[0][..., :1],
        'class_names': np.array(['a', 'b', 'c']),
    }
    path, _ = write(tmp_path / 'data.npz', **more)
    splits = SOURCES.make('arrays', path=path, validation_examples=1)
    assert splits.train.image_shape == (4, 5, 1)
    np.testing.assert_array_equal(splits.train.labels, labels[:9])
    assert splits.train.class_names == ('a', 'b', 'c')
    assert SOURCES.make('arrays', path=path, class_names=['x', 'y', 'z', 'w']).train.num_classes == 4


@pytest.mark.parametrize(
    ('more', 'options', 'message'),
    [
        ({}, {'train_examples': 28}, 'train_examples of .* must be 1 to 27, got 28'),
        ({}, {'train_examples': 0}, 'train_examples of .* must be 1 to 27, got 0'),
        ({}, {'test_examples': 13}, 'test_examples of .* must be 1 to 12, got 13'),
        ({}, {'validation_examples': 30}, 'needs 1 to 29 of them: got validation_examples 30'),
        ({}, {'validation_examples': -1}, 'needs 1 to 29 of them: got validation_examples -1'),
        ({}, {'class_names': ['a']}, 'needs at least 2 classes with different names'),
        ({}, {'class_names': ['a', 'b']}, r'label 2 of data\.npz/train is out of range'),
        ({}, {'class_names': ['a', 'b', 'a']}, 'with different names'),
        ({'class_names': np.array('abc')}, {}, r'class_names of .* must be strings \[K\], got <U3 \(\)'),
        ({'class_names': np.array([b'a', b'b', b'c'])}, {}, 'class_names of .* must be strings'),
        ({'x_train': split(30)[0]}, {}, 'images of one split under several names: train_images, x_train'),
        ({'test_images': np.zeros((12, 5, 5, 3), np.uint8)}, {}, r'test_images of .* are \[5, 5, 3\] each, but train_images'),
        ({'train_images': np.zeros((30, 4, 5, 4), np.uint8)}, {}, 'with 1 or 3 channels, got uint8'),
        ({'train_images': np.zeros((30, 4, 0, 3), np.uint8)}, {}, r'got uint8 \(30, 4, 0, 3\)'),
        ({'train_images': np.uint8(3)}, {}, r'got uint8 \(\)'),
        ({'train_labels': np.full(30, 1000)}, {}, 'go up to 1000, for 42 examples'),
        ({'train_labels': np.zeros(30, 'timedelta64[s]')}, {}, r'must be integers \[N\]'),
        ({}, {'sha256': '0'}, 'has changed: its SHA-256 is'),
        ({'val_images': split(2)[0]}, {}, 'has no array validation_labels'),
        ({'train_labels': np.array(['a'] * 30)}, {}, r'train_labels of .* must be integers \[N\], got <U1'),
        ({'train_labels': np.zeros((30, 2), int)}, {}, r'train_labels .* got int64 \(30, 2\)'),
        ({'train_labels': np.arange(30) - 1}, {}, r'train_labels of .* must be in \[0, K\) for K classes, got -1 to 28'),
        ({'test_labels': np.full(12, 2**40)}, {}, 'test_labels of .* got 1099511627776'),
        ({'train_images': np.zeros((30, 4, 5, 3))}, {}, r'train_images of .* must be uint8 .* got float64 \(30, 4, 5, 3\)'),
        ({'train_images': split(29)[0]}, {}, 'has 29 train_images and 30 train_labels'),
        ({'train_labels': np.array([None] * 30)}, {}, 'it holds Python objects'),
        ({}, {'path': 'nowhere.npz'}, "could not read 'nowhere.npz'"),
    ],
)  # fmt: skip
def test_invalid_arrays_and_options_are_refused(tmp_path, more, options, message):
    path, _ = write(tmp_path / 'data.npz', **more)
    with pytest.raises(InputError, match=message):
        SOURCES.make('arrays', **{'path': path, **options})


def test_other_files_are_refused(tmp_path):
    (tmp_path / 'a.npz').write_bytes(b'no archive')
    np.save(tmp_path / 'b.npy', np.zeros(3))
    np.savez(tmp_path / 'c.npz', images=np.zeros(3))
    with zipfile.ZipFile(tmp_path / 'd.npz', 'w') as file:
        file.writestr('train_images', b'bytes')
    archive = pathlib.Path(write(tmp_path / 'e.npz')[0])
    archive.write_bytes(archive.read_bytes()[:-200])
    for name, message in (
        ('a.npz', 'it is not an archive of arrays'),
        ('b.npy', 'it is not an archive of arrays'),
        ('c.npz', 'has no array train_images'),
        ('d.npz', 'train_images is not an array'),
        ('e.npz', 'is not a .npz'),
        ('', 'could not read'),
    ):
        with pytest.raises(InputError, match=message):
            SOURCES.make('arrays', path=str(tmp_path / name))


def test_a_spec_is_pinned_to_the_content_of_its_file(tmp_path, monkeypatch):
    path, _ = write(tmp_path / 'data.npz')
    monkeypatch.chdir(tmp_path)
    spec = data.pinned({'name': 'arrays', 'path': 'data.npz'})
    assert spec['path'] == path
    assert len(SOURCES.make_from(spec).train) == 27
    write(tmp_path / 'data.npz', counts=(30, 11))
    assert data.pinned(spec) == spec  # its own hash is kept
    with pytest.raises(InputError, match=r'data\.npz has changed'):
        SOURCES.make_from(spec)

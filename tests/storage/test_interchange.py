import io

import numpy as np
import pytest
from PIL import Image

from rfn_jax import storage
from rfn_jax.core.errors import InputError


def make(channels=3):
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(4, 5, 6, channels)).astype(np.uint8)
    return storage.AdversarialSet(images, np.array([12, 3, 700, 41]), np.array([0, 9, 2, 2], np.int32), {})


@pytest.mark.parametrize('channels', [1, 3])
def test_a_folder_comes_back_as_it_was(tmp_path, channels):
    storage.write_folder(make(channels), tmp_path)
    assert (tmp_path / 'labels.csv').read_text().splitlines()[:2] == ['filename,label', '000012.png,0']
    with Image.open(tmp_path / 'images' / '000003.png') as image:
        np.testing.assert_array_equal(np.asarray(image).reshape(5, 6, channels), make(channels).images[1])
    back = storage.read_folder(tmp_path)
    for name in ('images', 'ids', 'labels'):
        np.testing.assert_array_equal(getattr(back, name), getattr(make(channels), name))


def test_a_folder_of_another_tool(tmp_path):
    # In the layout of TransferAttack: names that are not numbers, a third column, images next to the table.
    picture = Image.fromarray(make().images[0])
    for number in (1, 2):
        picture.save(tmp_path / f'ILSVRC_{number}.png')
    (tmp_path / 'labels.csv').write_text('filename,label,targeted_label\nILSVRC_1.png,3,4\nILSVRC_2.png,5,6\n')
    back = storage.read_folder(tmp_path)
    assert (back.labels.tolist(), back.ids.tolist()) == ([3, 5], [0, 1])


@pytest.mark.parametrize(
    ('table', 'message'),
    [
        ('filename,label\n', 'lists no images'),
        ('name,label\na.png,1\n', "no column 'filename'"),
        ('filename,label\na.png,cat\n', "line 2: label is 'cat', not an integer"),
        ('filename,label\nb.png,1\n', 'could not read the PNG file .*b.png'),
        ('filename,label\na.png,1\nlarge.png,1\n', r'large.png is \(9, 9, 3\), but the first image is \(5, 6, 3\)'),
        ('filename,label\nlossy.png,1\n', 'could not read the PNG file .*lossy.png'),
    ],
)
def test_folders_that_cannot_be_read(tmp_path, table, message):
    Image.fromarray(make().images[0]).save(tmp_path / 'a.png')
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / 'large.png')
    lossy = io.BytesIO()
    Image.fromarray(make().images[0]).save(lossy, format='JPEG')
    (tmp_path / 'lossy.png').write_bytes(lossy.getvalue())
    (tmp_path / 'labels.csv').write_text(table)
    with pytest.raises(InputError, match=message):
        storage.read_folder(tmp_path)


@pytest.mark.parametrize(('channels_first', 'floats'), [(False, True), (True, False)])
def test_npz_files_of_other_tools_and_our_own(tmp_path, channels_first, floats):
    storage.save_adversarial_set(make(), tmp_path)
    np.testing.assert_array_equal(storage.read_npz(tmp_path / 'adversarial.npz').ids, make().ids)
    images = make().images.transpose(0, 3, 1, 2) if channels_first else make().images
    images = images.astype(np.float32) / 255 if floats else images
    np.savez(tmp_path / 'a.npz', images=images, labels=make().labels.astype(np.int64))
    back = storage.read_npz(tmp_path / 'a.npz')
    np.testing.assert_array_equal(back.images, make().images)
    np.testing.assert_array_equal(back.labels, make().labels)
    assert back.ids.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({'labels': np.zeros(2, int)}, 'could not read images and labels'),
        ({'images': np.zeros((2, 4, 4, 3), np.uint8), 'labels': np.zeros(3, int)}, 'with N labels'),
        ({'images': np.full((1, 4, 4, 3), 1.5), 'labels': np.zeros(1, int)}, r'must be in \[0, 1\]'),
        ({'images': np.zeros((1, 4, 4, 3), np.int64), 'labels': np.zeros(1, int)}, 'got int64 and int64'),
        ({'images': np.zeros((1, 4, 4, 3), np.uint8), 'labels': np.zeros(1)}, 'got uint8 and float64'),
        ({'images': np.array([{}]), 'labels': np.zeros(1, int)}, 'could not read images and labels'),  # a pickle
    ],
)
def test_npz_files_that_cannot_be_read(tmp_path, arrays, message):
    np.savez(tmp_path / 'a.npz', **arrays)
    for name, expected in (('a.npz', message), ('nothing.npz', 'could not read images')):
        with pytest.raises(InputError, match=expected):
            storage.read_npz(tmp_path / name)

"""Image folders: their splits, labels, ids and errors, and lists of classes."""

import numpy as np
import pytest
import synthetic
from PIL import Image

from rfn_jax import data
from rfn_jax.core import options
from rfn_jax.core.errors import InputError
from rfn_jax.data import class_lists, folder_source


def fill(folder, count=3, seed=0):
    """Puts `count` images into a folder of a class."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(synthetic.image(6 + number % 3, 8, seed=seed + number)).save(folder / f'{seed + number}.png')


def make(directory, **settings):
    return options.call(
        'data', data.SOURCES['image_folder'], {'directory': str(directory), 'image_size': 4, **settings}
    )


def paths(split):
    return set(split.originals.paths)


@pytest.fixture
def pets(tmp_path):
    """A folder of classes without splits."""
    for label, name in enumerate(('dog', 'cat', 'owl')):
        fill(tmp_path / name, 30, seed=100 * label)
    return tmp_path


def test_splits_of_a_folder_of_classes_do_not_overlap_and_do_not_move(pets):
    before = make(pets)
    assert before.info == data.DataInfo((4, 4, 3), ('cat', 'dog', 'owl'), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    splits = {name: paths(getattr(before, name)) for name in ('train', 'validation', 'test')}
    assert sum(map(len, splits.values())) == len(set.union(*splits.values())) == 90
    assert 2 <= len(splits['validation']) <= 20
    assert 8 <= len(splits['test']) <= 30
    fill(pets / 'cat', 25, seed=500)
    fill(pets / 'ant', 5, seed=600)
    after = make(pets)
    for name, held in splits.items():
        assert held <= paths(getattr(after, name))
    assert after.info.class_names == ('ant', 'cat', 'dog', 'owl')


def test_records_have_the_label_and_id_of_their_path(pets):
    train = make(pets).train
    assert (np.diff(train.ids) > 0).all()
    for position in (0, 7, 20):
        image, label, number = train[position]
        path = train.originals.paths[position]
        assert ('cat', 'dog', 'owl')[label] == path.split('/')[0]
        assert number == train.ids[position] == folder_source.path_id(f'train/{path}')
        pixels = np.asarray(Image.open(pets / path))
        np.testing.assert_array_equal(train.originals[position].image, pixels)
        np.testing.assert_array_equal(image, data.ResizeAndCrop(4, 5)(pixels))
    assert train.originals.labels.dtype == np.int32
    assert train.source == 'image_folder/train'
    assert folder_source.path_id('train/cat/0.png') == 0x7A74BE83F7BE22F1  # on every machine


@pytest.mark.parametrize(
    ('folders', 'test_is', 'validation_is'),
    [
        (('train', 'val', 'test'), 'test', 'val'),
        (('training', 'valid', 'test'), 'test', 'valid'),
        (('train', 'validation'), 'validation', None),
        (('train', 'test'), 'test', None),
        (('train',), None, None),
    ],
)
def test_folders_of_splits(tmp_path, folders, test_is, validation_is):
    for number, name in enumerate(folders):
        for label, kind in enumerate(('a', 'b')):
            fill(tmp_path / name / kind, 30, seed=1000 * number + 100 * label)
    splits = make(tmp_path)
    for split, folder in ((splits.test, test_is), (splits.validation, validation_is)):
        if folder:
            expected = {path.relative_to(tmp_path / folder).as_posix() for path in (tmp_path / folder).rglob('*.png')}
            assert paths(split) == expected
        else:
            assert paths(split).isdisjoint(paths(splits.train))
            assert (tmp_path / folders[0] / next(iter(paths(split)))).exists()
    assert len(set(np.concatenate([splits.train.ids, splits.validation.ids, splits.test.ids]))) == 60 * len(folders)


def test_counts_take_the_lowest_ids_and_statistics_and_channels_can_be_set(pets):
    whole = make(pets)
    part = make(pets, train_examples=5, validation_examples=2, test_examples=3, channels=1, mean=(0.5,), std=(0.2,))
    assert (len(part.train), len(part.validation), len(part.test)) == (5, 2, 3)
    np.testing.assert_array_equal(part.train.ids, whole.train.ids[:5])
    assert part.train[0].image.shape == part.info.image_shape == (4, 4, 1)
    assert (part.info.mean, part.info.std) == ((0.5,), (0.2,))


def test_other_files_are_ignored_and_subfolders_and_links_are_read(tmp_path):
    for name in ('a', 'b'):
        fill(tmp_path / 'train' / name, 12)
    a = tmp_path / 'train' / 'a'
    fill(a / 'more' / 'deep', 1, seed=50)
    fill(a / '.hidden', 1, seed=60)
    (a / 'notes.txt').write_text('x')
    (a / '._1.png').write_text('x')
    (tmp_path / 'train' / '.cache').mkdir()
    (a / '0.png').rename(a / '0.PNG')
    fill(tmp_path / 'elsewhere', 1, seed=70)
    (a / 'linked').symlink_to(tmp_path / 'elsewhere')
    splits = make(tmp_path)
    found = set.union(*(paths(split) for split in (splits.train, splits.validation, splits.test)))
    assert {path for path in found if path.startswith('a/')} == {
        'a/0.PNG', *(f'a/{n}.png' for n in range(1, 12)), 'a/more/deep/50.png', 'a/linked/70.png'
    }  # fmt: skip


def test_a_list_of_classes_gives_the_order_and_the_names(pets, tmp_path_factory):
    classes = tmp_path_factory.mktemp('lists') / 'classes.txt'
    classes.write_text('owl  night owl, bird\n\ncat\tcat\ndog\n')
    splits = make(pets, classes=str(classes))
    assert splits.info.class_names == ('night owl, bird', 'cat', 'dog')
    by_folder = {
        path.split('/')[0]: splits.train.originals.labels[i] for i, path in enumerate(splits.train.originals.paths)
    }
    assert by_folder == {'owl': 0, 'cat': 1, 'dog': 2}
    # Classes without a folder keep their place, as in a part of ImageNet.
    classes.write_text('owl\nfox\ncat\ndog\n')
    assert make(pets, classes=str(classes)).train.originals.labels.max() == 3


def test_a_pinned_folder_is_refused_after_a_change_of_its_files_but_not_of_its_place(pets):
    spec = {'name': 'image_folder', 'directory': str(pets), 'image_size': 4}
    pinned = data.pinned(spec)
    assert data.pinned(pinned) == pinned
    data.SOURCES.make_from(pinned)
    moved = pets.with_name('moved')
    pets.rename(moved)
    data.SOURCES.make_from({**pinned, 'directory': str(moved)})
    next((moved / 'cat').iterdir()).unlink()
    with pytest.raises(InputError, match=r'moved has changed: .*restore it, or choose another --workdir'):
        data.SOURCES.make_from({**pinned, 'directory': str(moved)})


def one_class(root):
    fill(root / 'a')


def empty_class(root):
    fill(root / 'a')
    (root / 'b').mkdir()


def unknown_class(root):
    fill(root / 'train' / 'a', 20)
    fill(root / 'train' / 'b', 20)
    fill(root / 'val' / 'c')


def two_validations(root):
    for name in ('train', 'val', 'valid'):
        fill(root / name / 'a')


def empty_split(root):
    fill(root / 'train' / 'a', 20)
    fill(root / 'train' / 'b', 20)
    (root / 'test').mkdir()


def few_images(root):
    fill(root / 'a', 1)
    fill(root / 'b', 1)


def usual(root):
    fill(root / 'a', 20)
    fill(root / 'b', 20)


@pytest.mark.parametrize(
    ('prepare', 'settings', 'message'),
    [
        (lambda root: root.rmdir(), {}, 'image folder .* does not exist'),
        (lambda root: (root.rmdir(), root.write_text('x')), {}, 'image folder .* is not a folder'),
        (lambda root: None, {}, 'has 0 folders of classes; at least 2 are needed'),
        (one_class, {}, 'has 1 folders of classes; at least 2 are needed'),
        (empty_class, {}, r'/b has no image \(\.bmp'),
        (unknown_class, {}, r'val/c is a class that the training set does not have'),
        (two_validations, {}, 'several folders of one split: val, valid'),
        (empty_split, {}, 'test has no folders of classes'),
        (few_images, {}, 'has no image for (train|validation|test); add images, or change validation_fraction'),
        (usual, {'channels': 2}, 'channels must be 1 or 3, got 2'),
        (usual, {'image_size': 0}, 'image_size must be an integer of at least 1, got 0'),
        (usual, {'resize': 3}, 'resize must be an integer of at least 4, got 3'),
        (usual, {'interpolation': 'cubic'}, "unknown interpolation 'cubic'; did you mean 'bicubic'"),
        (
            usual,
            {'validation_fraction': 0.0},
            'validation_fraction must be a finite number above 0 and below 0.5, got 0.0',
        ),
        (usual, {'test_fraction': 0.5}, 'test_fraction must be .*, got 0.5'),
        (usual, {'train_examples': 99}, 'train_examples must be an integer from 1 to .*, got 99'),
        (usual, {'mean': (0.5, 0.5)}, r'mean must have 3 numbers, one for each channel, got \(0.5, 0.5\)'),
        (usual, {'classes': '/absent.txt'}, r'could not read the list of classes /absent\.txt: .*No such file'),
        (usual, {'directory': ''}, 'directory must be the path of a folder, got'),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, prepare, settings, message):
    root = tmp_path / 'images'
    root.mkdir()
    prepare(root)
    with pytest.raises(InputError, match=message) as error:
        make(**{'directory': root, **settings})
    assert '\n' not in str(error.value)


def test_an_unreadable_file_is_named_when_it_is_read(tmp_path):
    usual(tmp_path)
    (tmp_path / 'a' / '1.png').write_bytes(b'no image')
    splits = make(tmp_path)
    (split,) = (split for split in (splits.train, splits.validation, splits.test) if 'a/1.png' in paths(split))
    with pytest.raises(InputError, match=r'/a/1\.png is not an image'):
        data.in_memory(split, splits.info)


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
    usual(tmp_path)
    real = folder_source.os.scandir

    def scandir(path):
        if str(path).endswith('/a'):
            raise PermissionError(13, 'Permission denied', str(path))
        return real(path)

    monkeypatch.setattr(folder_source.os, 'scandir', scandir)
    with pytest.raises(InputError, match=r'could not read .*/a: Permission denied'):
        make(tmp_path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'cat\ndog\n', 'owl is a class that .*list.txt does not have'),
        (b'cat\n', r'list\.txt has 1 classes; at least 2 are needed'),
        (b'', r'list\.txt has 0 classes'),
        (b'cat\ndog\ncat\n', r"list\.txt lists 'cat' twice \(line 3\)"),
        (b'\xff\xfe', 'could not read the list of classes .*list.txt'),
    ],
)
def test_wrong_lists_of_classes_are_refused(pets, tmp_path_factory, content, message):
    classes = tmp_path_factory.mktemp('lists') / 'list.txt'
    classes.write_bytes(content)
    with pytest.raises(InputError, match=message):
        make(pets, classes=str(classes))


def test_a_list_of_classes_may_start_with_a_byte_order_mark(tmp_path):
    path = tmp_path / 'list.txt'
    path.write_bytes('n1 tench, Tinca\r\nn2\tgoldfish \r\n'.encode('utf-8-sig'))
    assert class_lists.read(str(path)) == {'n1': 'tench, Tinca', 'n2': 'goldfish'}

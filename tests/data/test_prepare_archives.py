import io
import pathlib
import tarfile

import image_files
import numpy as np
import pytest
import scipy.io

from rfn_jax.core.errors import InputError
from rfn_jax.data import prepare
from rfn_jax.data.prepare import validation_labels


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return image_files.write_folder(tmp_path_factory.mktemp('images'))


@pytest.fixture(scope='module')
def archives(folder, tmp_path_factory):
    return image_files.write_archives(folder, tmp_path_factory.mktemp('archives'))


def read(archives, **options):
    options = {'validation': 'val.tar', 'validation_labels': 'labels.txt', **options}
    paths = {name: str(archives / value) if value else '' for name, value in options.items()}
    return prepare.archives.read(paths.pop('train', str(archives / 'train.tar')), **paths)


def test_archives_give_the_data_set_that_the_folder_gives(folder, archives, tmp_path):
    listed = {'folder': prepare.folder.read(folder), 'archives': read(archives)}
    assert listed['folder'].sha256() == listed['archives'].sha256()
    for name, listing in listed.items():
        prepare.prepare(listing, str(tmp_path / name), 'insects', options=prepare.Options(shard_mb=0.01))
    ours, theirs = (image_files.contents(tmp_path / name) for name in listed)
    for files in (ours, theirs):
        del files['insects/1.0.0/manifest.json']  # it says where the images came from
    assert ours == theirs
    # so that a data set that was begun from one of them can be finished from the other
    prepare.prepare(listed['folder'], str(tmp_path / 'archives'), 'insects', options=prepare.Options(shard_mb=0.01))


def test_without_validation_images_test_images_are_held_out(archives):
    listing = read(archives, validation='', validation_labels='')
    assert {split: len(images) for split, images in listing.splits.items()} == {'train': 17, 'test': 4}
    assert listing.origin['test_fraction'] == 0.2


def test_a_list_of_classes_decides_their_order(archives, tmp_path):
    (tmp_path / 'classes.txt').write_text('cat a pet\nant\nbee\nowl\n')
    listing = read(archives, classes=str(tmp_path / 'classes.txt'))
    assert listing.classes == ('cat', 'ant', 'bee', 'owl')
    for images in listing.splits.values():
        assert [listing.classes[label] for label in images.labels] == [name.split('/')[0] for name in images.names]


def test_other_members_are_ignored(archives, tmp_path):
    content = io.BytesIO((archives / 'val.tar').read_bytes())
    with tarfile.open(fileobj=content, mode='a') as archive:
        for name in ('./._val.JPEG', 'readme.txt'):
            archive.addfile(tarfile.TarInfo(name))
        directory = tarfile.TarInfo('folder')
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
    (tmp_path / 'val.tar').write_bytes(content.getvalue())
    assert read(archives, validation=tmp_path / 'val.tar').sha256() == read(archives).sha256()


def damaged(archives, tmp_path, change):
    content = change((archives / 'train.tar').read_bytes())
    (tmp_path / 'train.tar').write_bytes(content)
    return tmp_path / 'train.tar'


def link(content):
    stream = io.BytesIO(content)
    with tarfile.open(fileobj=stream, mode='a') as archive:
        member = tarfile.TarInfo('owl.tar')
        member.type, member.linkname = tarfile.SYMTYPE, '/etc/passwd'
        archive.addfile(member)
    return stream.getvalue()


def header(content):
    """Damages the header of the second class."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        start = archive.getmembers()[1].offset
    return content[:start] + b'x' * 512 + content[start + 512 :]


def inner_end(content):
    """Damages the end of the first class, where the outer archive is whole."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        end = archive.getmembers()[0].offset_data + archive.getmembers()[0].size
    return content[: end - 10240] + b'x' * 10240 + content[end:]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda content: content[: len(content) // 2], 'is cut off or damaged'),
        (lambda content: content[:100], 'is cut off or damaged'),
        (lambda content: content.rstrip(b'\0') + bytes(-len(content.rstrip(b'\0')) % 512), 'cut off or damaged'),
        (lambda content: b'', 'is cut off or damaged'),
        (lambda content: b'\x1f\x8b' + content, 'not an uncompressed tar file'),
        (header, 'is cut off or damaged'),
        (inner_end, "'ant.tar' of .* is cut off or damaged"),
        (link, "'owl.tar' in .* is not a plain file"),
        (lambda content: image_files.tar_bytes([('a.tar', content)]), "'a.tar' of .*train.tar has no image"),
        (lambda content: image_files.tar_bytes([('a.jpg', b'x')]), "one .tar file for each class, but holds 'a.jpg'"),
        (lambda content: image_files.tar_bytes([('a.tar', b'x' * 2000)]), "'a.tar' of .* is cut off or damaged"),
        (
            lambda content: image_files.tar_bytes([('a.tar', image_files.tar_bytes([('a.jpg', b'x')]))]),
            'has 1 classes; at least 2 are needed',
        ),
        (
            lambda content: image_files.tar_bytes([('a.tar', image_files.tar_bytes([('a.jpg', b'x'), ('x/a.jpg', b'')])),
                                                   ('b.tar', image_files.tar_bytes([('a.jpg', b'x')]))]),
            "has two images 'a/a.jpg'",
        ),
    ],
)  # fmt: skip
def test_archives_that_cannot_be_used(change, message, archives, tmp_path):
    path = damaged(archives, tmp_path, change)
    with pytest.raises(InputError, match=message) as caught:
        read(archives, train=path, validation='', validation_labels='')
    assert '\n' not in str(caught.value)


def test_an_archive_that_is_cut_off_anywhere_is_refused(archives, tmp_path):
    content = (archives / 'val.tar').read_bytes()
    end = len(content.rstrip(b'\0'))
    for size in np.random.default_rng(0).integers(1, end, 50):
        (tmp_path / 'val.tar').write_bytes(content[:size])
        with pytest.raises(InputError, match='is cut off or damaged'):
            read(archives, validation=tmp_path / 'val.tar')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'train': 'nowhere.tar'}, 'could not read .*nowhere.tar: No such file'),
        ({'validation': ''}, 'labels of validation images were given, but no archive'),
        ({'validation_labels': ''}, 'the 21 validation images are not the 50000 of ILSVRC2012: give a file'),
        ({'classes': 'labels.txt'}, "train.tar has the class 'ant', which .*labels.txt does not have"),
    ],
)
def test_options_that_do_not_fit(options, message, archives):
    with pytest.raises(InputError, match=message):
        read(archives, **options)


def test_a_class_that_the_training_images_lack_is_named(archives, tmp_path):
    text = (archives / 'labels.txt').read_text().replace(' bee', ' owl')
    (tmp_path / 'labels.txt').write_text(text)
    with pytest.raises(
        InputError, match=r"'val_00_bee.JPEG' of .*val.tar has the class 'owl', which .*train.tar does not"
    ):
        read(archives, validation_labels=tmp_path / 'labels.txt')


IMAGES = ['v_1.JPEG', 'v_2.JPEG', 'v_3.JPEG']


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path('ids.txt').write_text('bee\nant bug\ncat\n')
    synsets = np.zeros(4, [('ILSVRC2012_ID', 'f8'), ('WNID', 'O'), ('words', 'O')])
    for row, (number, name) in enumerate([(2, 'ant'), (1, 'bee'), (3, 'cat'), (4, 'animal')]):
        synsets[row] = (number, name, 'words')
    scipy.io.savemat('meta.mat', {'synsets': synsets})
    pathlib.Path('damaged.mat').write_bytes(pathlib.Path('meta.mat').read_bytes()[:200])
    return tmp_path


@pytest.mark.parametrize(
    ('text', 'ids'),
    [
        ('2\n1\n3\n', 'ids.txt'),
        ('2\n1\n3\n', 'meta.mat'),
        ('ant\nbee\r\ncat\n', ''),
        ('v_3.JPEG cat\nv_1.JPEG\tant\n\nv_2.JPEG bee\n', ''),
        ('ImageId,PredictionString\nv_2,bee 1 2 3 4\nv_1,ant 1 2 3 4 ant 5 6 7 8\nv_3,cat 1 2 3 4\n', ''),
    ],
)
def test_every_form_of_labels(text, ids, files):
    pathlib.Path('labels.txt').write_text(text)
    assert validation_labels.read('labels.txt', ids, IMAGES) == ['ant', 'bee', 'cat']


@pytest.mark.parametrize(
    ('text', 'ids', 'message'),
    [
        ('2\n1\n3\n', '', 'labels.txt has numbers, whose order is not that of the WordNet ids'),
        *((f'2\n1\n{c}\n', 'ids.txt', f"labels.txt has the class '{c}', which ids.txt does not have") for c in '40x'),
        ('2\n1\n3\n', 'damaged.mat', 'could not read damaged.mat as the meta.mat of ILSVRC2012'),
        ('2\n1\n3\n', 'nowhere.txt', 'could not read the list of classes nowhere.txt'),
        ('2\n1\n', 'ids.txt', 'labels.txt has 2 labels, but there are 3 validation images'),
        ('', '', 'labels.txt has no labels'),
        ('v_1 a\nv_2 b\n', '', "has no label for 'v_3.JPEG'"),
        ('v_1 a\nv_2 b\nv_3 a\nv_4 a\n', '', "has a label for 'v_4', which is not a validation image or is listed twice"),
        ('v_1 a\nv_2 b\nv_3 a\nv_1 b\n', '', "has a label for 'v_1', which"),
        ('v_1 a\nv_2\n', '', "must have the name of an image and its class on each line, but has 'v_2'"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit(text, ids, message, files):
    pathlib.Path('labels.txt').write_text(text)
    with pytest.raises(InputError) as caught:
        validation_labels.read('labels.txt', ids, IMAGES)
    assert message in str(caught.value)


def test_the_official_labels_are_known():
    names = [f'ILSVRC2012_val_{number:08d}.JPEG' for number in range(1, 50_001)]
    labels = validation_labels.read('', '', names)
    assert labels[:3] == ['n01751748', 'n09193705', 'n02105855']
    assert set(np.unique(labels, return_counts=True)[1]) == {50}

import itertools
import json
import os
import pathlib
import resource

import image_files
import numpy as np
import pytest

from rfn_jax.core import digests, locks
from rfn_jax.core.errors import InputError, RunError
from rfn_jax.data import SOURCES, decode, prepare
from rfn_jax.data.prepare import images as images_lib
from rfn_jax.data.prepare import shards

SMALL = prepare.Options(shard_mb=0.002)  # several shards for a few small images


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return image_files.write_folder(tmp_path_factory.mktemp('images'))


def made(source, out, name='insects', **settings):
    return prepare.prepare(prepare.folder.read(source), str(out), name, **{'options': SMALL, **settings})


def opened(out, **options):
    return SOURCES.make('tfds', dataset='insects', data_dir=str(out), image_size=8, **options)


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        assert a.label == b.label


def test_pixels_labels_and_order_are_those_of_the_image_folder(folder, tmp_path):
    manifest = made(folder, tmp_path)
    assert len(manifest['splits']['train']['shards']) > 2
    splits = opened(tmp_path, validation_examples=1)
    theirs = SOURCES.make('image_folder', directory=str(folder), image_size=8)
    assert splits.info == theirs.info
    assert_equal(splits.test, theirs.test)
    listed = prepare.folder.read(folder).splits['train']
    assert set(listed.labels[:6]) == {0, 1, 2}  # the classes are mixed
    records = list(itertools.chain(splits.train.originals, splits.validation.originals))
    for record, name, label in zip(records, listed.names, listed.labels, strict=True):
        np.testing.assert_array_equal(record.image, decode(folder / 'train' / name))
        assert record.label == label


def test_bytes_are_stored_as_they_are_and_tfds_reads_them(folder, tmp_path):
    import tensorflow_datasets as tfds

    made(folder, tmp_path)
    builder = tfds.builder_from_directory(tmp_path / 'insects' / '1.0.0')
    assert builder.info.supervised_keys == ('image', 'label')
    assert builder.info.features['label'].names == list(image_files.CLASSES)
    records = builder.as_data_source('validation', decoders={'image': tfds.decode.SkipDecoding()})
    assert len(records) == 21
    for record in records:
        name = record['file_name'].decode()
        assert record['image'] == (folder / 'val' / name).read_bytes()
        assert image_files.CLASSES[record['label']] == name.split('/')[0]


def test_a_folder_of_classes_has_the_test_images_of_image_folder(tmp_path):
    root = image_files.write_folder(tmp_path / 'images', ('',), count=20)
    manifest = made(root, tmp_path / 'out')
    theirs = SOURCES.make('image_folder', directory=str(root), image_size=8)
    assert_equal(opened(tmp_path / 'out').test, theirs.test)
    assert manifest['splits']['train']['examples'] == len(theirs.train) + len(theirs.validation)
    assert manifest['origin']['test_fraction'] == 0.2


def test_three_folders_of_splits_stay_three(tmp_path):
    root = image_files.write_folder(tmp_path / 'images', ('train', 'val', 'test'), count=2)
    assert list(made(root, tmp_path / 'out')['splits']) == ['train', 'validation', 'test']
    ours = opened(tmp_path / 'out', validation_split='validation')
    theirs = SOURCES.make('image_folder', directory=str(root), image_size=8)
    for split in ('train', 'validation', 'test'):
        assert_equal(getattr(ours, split), getattr(theirs, split))
    with pytest.raises(
        InputError, match="split 'validation' of 'insects' cannot be for testing and for another purpose"
    ):
        opened(tmp_path / 'out', validation_split='validation', test_split='validation')
    with pytest.raises(InputError, match='validation_examples 7 must be at most 6'):
        opened(tmp_path / 'out', validation_split='validation', validation_examples=7)


def test_the_manifest_counts_hashes_and_names_the_options(folder, tmp_path):
    manifest = made(folder, tmp_path)
    final = tmp_path / 'insects' / '1.0.0'
    assert manifest == json.loads((final / 'manifest.json').read_text())
    assert manifest['options'] == {'channels': 3, 'max_side': None, 'shard_mb': 0.002}
    assert (manifest['skipped'], manifest['image_shape']) == ([], None)
    for split in manifest['splits'].values():
        assert split['classes'] == dict.fromkeys(image_files.CLASSES, 7)
        assert split['examples'] == sum(shard['examples'] for shard in split['shards']) == 21
        for shard in split['shards']:
            assert digests.of_file(final / shard['file']) == shard['sha256']
    assert {path.name for path in tmp_path.rglob('*')} >= {'features.json', 'dataset_info.json'}
    assert [path.name for path in (tmp_path / 'insects').iterdir()] == ['1.0.0']


@pytest.mark.skipif('RFN_JAX_IMAGENET_SAMPLE' not in os.environ, reason='RFN_JAX_IMAGENET_SAMPLE is not set')
def test_real_images_are_those_of_the_image_folder(tmp_path):
    root = pathlib.Path(os.environ['RFN_JAX_IMAGENET_SAMPLE'])
    options = {'classes': str(root / 'wnids.txt')}
    manifest = prepare.prepare(prepare.folder.read(str(root), **options), str(tmp_path), 'insects')
    assert {name: split['examples'] for name, split in manifest['splits'].items()} == {'train': 139, 'validation': 46}
    theirs = SOURCES.make('image_folder', directory=str(root), image_size=8, **options)
    assert_equal(opened(tmp_path).test, theirs.test)


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_number_of_workers(folder, tmp_path):
    for workers in (1, 3):
        made(folder, tmp_path / str(workers), workers=workers)
    assert image_files.contents(tmp_path / '1') == image_files.contents(tmp_path / '3')


def test_an_interrupted_run_continues_and_keeps_what_is_finished(folder, tmp_path, monkeypatch):
    made(folder, tmp_path / 'whole')
    calls = itertools.count()
    read = images_lib.Images.read

    def interrupted(self, position):
        if next(calls) == 17:
            raise KeyboardInterrupt
        return read(self, position)

    with monkeypatch.context() as patch:
        patch.setattr(images_lib.Images, 'read', interrupted)
        with pytest.raises(KeyboardInterrupt):
            made(folder, tmp_path / 'out')
    with pytest.raises(InputError, match='found no insects'):
        opened(tmp_path / 'out')
    incomplete = tmp_path / 'out' / 'insects' / '1.0.0.incomplete'
    written = {file.name for file in (incomplete / 'data').iterdir()}
    assert written
    # A shard that was written but not noted, or is shorter than noted, is written again.
    first, second, *_ = sorted(written)
    (incomplete / 'parts' / f'{first}.json').unlink()
    os.truncate(incomplete / 'data' / second, 5)
    again = []
    with monkeypatch.context() as patch:
        patch.setattr(shards, 'write', lambda shard, write=shards.write: (again.append(shard.file), write(shard))[1])
        manifest = made(folder, tmp_path / 'out')
    files = {shard['file'] for split in manifest['splits'].values() for shard in split['shards']}
    assert set(again) == files - written | {first, second}
    assert image_files.contents(tmp_path / 'out') == image_files.contents(tmp_path / 'whole')


def test_a_finished_data_set_is_left_as_it_is(folder, tmp_path, monkeypatch):
    manifest = made(folder, tmp_path)
    (tmp_path / 'insects' / '1.0.0.incomplete' / 'parts').mkdir(parents=True)  # a kill right before it is removed
    monkeypatch.setattr(shards, 'write', lambda shard: pytest.fail('a shard was written'))
    assert made(folder, tmp_path) == manifest
    assert [path.name for path in (tmp_path / 'insects').iterdir()] == ['1.0.0']
    (tmp_path / 'insects' / '1.0.0' / manifest['splits']['train']['shards'][0]['file']).unlink()
    with pytest.raises(InputError, match=r'-00000-of-.* is missing or damaged: delete'):
        made(folder, tmp_path)


@pytest.mark.parametrize('finished', [True, False])
def test_other_options_and_other_images_are_refused(finished, folder, tmp_path, monkeypatch):
    if finished:
        made(folder, tmp_path / 'out')
    else:
        with monkeypatch.context() as patch:
            patch.setattr(shards, 'write', lambda shard: pytest.fail('stopped'))
            with pytest.raises(pytest.fail.Exception):
                made(folder, tmp_path / 'out')
    before = image_files.contents(tmp_path / 'out')
    other = image_files.write_folder(tmp_path / 'other', count=6)
    with pytest.raises(InputError, match='made with max_side None, not 8: give the same options'):
        made(folder, tmp_path / 'out', options=prepare.Options(max_side=8, shard_mb=0.002))
    with pytest.raises(InputError, match=f'made from other images .*{folder}.* than those of .*{other}'):
        made(other, tmp_path / 'out')
    assert image_files.contents(tmp_path / 'out') == before


def test_larger_images_are_shrunk_and_smaller_ones_are_kept(tmp_path):
    sizes = {'a/large.png': (40, 20), 'a/wide.jpg': (50, 11), 'b/small.jpg': (30, 10), 'b/tall.jpg': (16, 64)}
    for number, (name, size) in enumerate(sizes.items()):
        (tmp_path / 'in' / 'train' / name).parent.mkdir(parents=True, exist_ok=True)
        kind = 'PNG' if name.endswith('png') else 'JPEG'
        (tmp_path / 'in' / 'train' / name).write_bytes(image_files.encoded(number, size, kind=kind))
    (tmp_path / 'in' / 'test').symlink_to(tmp_path / 'in' / 'train')
    made(tmp_path / 'in', tmp_path, options=prepare.Options(max_side=10))
    import tensorflow_datasets as tfds

    records = tfds.builder_from_directory(tmp_path / 'insects' / '1.0.0').as_data_source(
        'train', decoders={'image': tfds.decode.SkipDecoding()}
    )
    found = {record['file_name'].decode(): record['image'] for record in records}
    shapes = {name: decode(image).shape[1::-1] for name, image in found.items()}
    assert shapes == {'a/large.png': (20, 10), 'a/wide.jpg': (45, 10), 'b/small.jpg': (30, 10), 'b/tall.jpg': (10, 40)}
    assert found['b/small.jpg'] == (tmp_path / 'in' / 'train' / 'b' / 'small.jpg').read_bytes()
    assert found['a/large.png'][:2] == b'\xff\xd8'  # JPEG
    original = decode(tmp_path / 'in' / 'train' / 'a' / 'large.png').reshape(10, 2, 20, 2, 3).mean((1, 3))
    assert np.abs(decode(found['a/large.png']) - original).mean() < 6


@pytest.mark.parametrize('channels', [1, 3])
def test_images_of_one_size_need_no_image_size(channels, tmp_path):
    for split, name, number in itertools.product(('train', 'test'), ('a', 'b'), range(3)):
        folder = tmp_path / 'in' / split / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f'{number}.png').write_bytes(image_files.encoded(number, mode='L', kind='PNG'))
    made(tmp_path / 'in', tmp_path, options=prepare.Options(channels=channels))
    splits = SOURCES.make('tfds', dataset='insects', data_dir=str(tmp_path))
    assert splits.info.image_shape == splits.test[0].image.shape == (9, 12, channels)


def corrupt(folder):
    """Cuts off one training image, and replaces another by text."""
    names = sorted(str(path.relative_to(folder)) for path in (folder / 'train').glob('*/*.JPEG'))[:2]
    (folder / names[0]).write_bytes((folder / names[0]).read_bytes()[:-40])
    (folder / names[1]).write_text('not an image')
    return [name.removeprefix('train/') for name in names]


def test_damaged_images_are_named_or_left_out(tmp_path, capsys):
    root = image_files.write_folder(tmp_path / 'images')
    cut, text = corrupt(root)
    with pytest.raises(InputError, match=rf"('{cut}' is damaged|'{text}' is not an image).*--corrupt=skip") as caught:
        made(root, tmp_path / 'out')
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'out' / 'insects' / '1.0.0').exists()
    manifest = made(root, tmp_path / 'out', corrupt='skip')  # continues
    assert {(entry['split'], entry['file']) for entry in manifest['skipped']} == {('train', cut), ('train', text)}
    assert manifest['splits']['train']['classes'] == {'ant': 5, 'bee': 7, 'cat': 7}
    assert len(opened(tmp_path / 'out', validation_examples=1).train) == 18
    printed = capsys.readouterr().out
    assert f"skipped: '{cut}' is damaged" in printed
    assert f"skipped: '{text}' is not an image" in printed
    with pytest.raises(InputError, match='finished, but without 2 damaged images'):
        made(root, tmp_path / 'out')


def test_what_was_left_out_before_is_not_accepted_later(tmp_path, monkeypatch):
    root = image_files.write_folder(tmp_path / 'images')
    corrupt(root)
    with monkeypatch.context() as patch:
        patch.setattr('rfn_jax.data.prepare.metadata.write_tfds', lambda *_: pytest.fail('stopped'))
        with pytest.raises(pytest.fail.Exception):
            made(root, tmp_path / 'out', corrupt='skip')
    with pytest.raises(InputError, match='was left out before; continue with --corrupt=skip'):
        made(root, tmp_path / 'out')
    made(root, tmp_path / 'out', corrupt='skip')


def test_shards_without_an_image_are_read_and_splits_without_one_refused(tmp_path):
    root = image_files.write_folder(tmp_path / 'images')
    listing = prepare.folder.read(root)
    for name in listing.splits['train'].names[3:6]:
        (root / 'train' / name).write_text('not an image')
    options = prepare.Options(shard_mb=1e-9)  # a shard for each image
    made(root, tmp_path / 'out', corrupt='skip', options=options)
    splits = opened(tmp_path / 'out', validation_examples=1)
    kept = [name for position, name in enumerate(listing.splits['train'].names) if not 3 <= position < 6]
    for record, name in zip(splits.train.originals, kept[:-1], strict=True):
        np.testing.assert_array_equal(record.image, decode(root / 'train' / name))
    for name in listing.splits['validation'].names:
        (root / 'val' / name).write_text('not an image')
    with pytest.raises(InputError, match=r'no image of validation can be decoded, such as .*is not an image'):
        made(root, tmp_path / 'out2', corrupt='skip')
    assert not (tmp_path / 'out2' / 'insects' / '1.0.0').exists()


def test_a_file_that_changes_or_cannot_be_read_is_an_error_even_if_damaged_ones_are_skipped(tmp_path):
    root = image_files.write_folder(tmp_path / 'images')
    listing = prepare.folder.read(root)
    path = root / 'train' / listing.splits['train'].names[0]
    path.write_bytes(path.read_bytes() + b'more')
    with pytest.raises(InputError, match='has changed: it has'):
        prepare.prepare(listing, str(tmp_path / 'out'), 'insects', corrupt='skip')
    path.unlink()
    with pytest.raises(InputError, match=r'could not read .*No such file'):
        prepare.prepare(listing, str(tmp_path / 'out'), 'insects', corrupt='skip')


def test_a_full_disk_is_one_line_and_the_same_call_continues(folder, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # less than any file of ArrayRecord
    try:
        with pytest.raises(InputError, match=r'could not write .*insects-train.*free space') as caught:
            made(folder, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert '\n' not in str(caught.value)
    assert not list((tmp_path / 'insects' / '1.0.0.incomplete' / 'data').iterdir())
    made(folder, tmp_path)


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_written(folder, tmp_path, monkeypatch):
    usage = type('Usage', (), {'free': 1000})
    monkeypatch.setattr('shutil.disk_usage', lambda path: usage)
    with pytest.raises(InputError, match=r'has 1.0 kB free, but \d+.\d kB are needed'):
        made(folder, tmp_path)
    assert not image_files.contents(tmp_path)


def test_two_runs_do_not_write_the_same_data_set(folder, tmp_path):
    with locks.held(tmp_path / 'insects' / '1.0.0.lock'), pytest.raises(RunError, match=r'1\.0\.0\.lock is held by'):
        made(folder, tmp_path)


@pytest.mark.parametrize(
    ('examples', 'size', 'count'),
    [(1_281_167, 146 << 30, 584), (5000, 700 << 20, 16), (185, 18 << 20, 4), (3, 1 << 30, 3), (5, 100, 1)],
)
def test_the_number_of_shards(examples, size, count):
    assert prepare.Options().num_shards(examples, size) == count


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'name': 'Insects'}, "name must be lowercase letters, digits and _, and start with a letter, got 'Insects'"),
        ({'name': '../x'}, "start with a letter, got '../x'"),
        ({'name': 'imagenet2012'}, "TFDS has a data set 'imagenet2012' of its own: choose another name"),
        ({'corrupt': 'ignore'}, "unknown value of corrupt: 'ignore'"),
        ({'workers': 0}, 'workers must be an integer of at least 1, got 0'),
        ({'out': 'gs://bucket/x'}, 'out must be a local folder'),
    ],
)
def test_wrong_arguments_write_nothing(settings, message, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        made(folder, **{'out': 'out', **settings})
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'channels': 2}, 'channels must be 1 or 3, got 2'),
        ({'max_side': 0}, 'max_side must be an integer of at least 1, got 0'),
        ({'shard_mb': 0.0}, 'shard_mb must be a finite number above 0, got 0'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        prepare.Options(**options)


def test_the_data_set_cannot_be_in_the_folder_of_its_images(folder):
    with pytest.raises(InputError, match='is in the folder of the images'):
        made(folder, folder / 'out')
    assert not pathlib.Path(folder / 'out').exists()


def test_a_name_that_is_not_utf_8_is_named(tmp_path):
    root = image_files.write_folder(tmp_path / 'images', count=2)
    (root / 'train' / 'ant' / os.fsdecode(b'\xff.jpg')).write_bytes(image_files.encoded(0))
    with pytest.raises(InputError, match=r"'train/ant/\\udcff.jpg' is not UTF-8"):
        made(root, tmp_path / 'out')


def test_what_something_else_made_is_not_taken_for_finished(folder, tmp_path):
    (tmp_path / 'insects' / '1.0.0').mkdir(parents=True)
    with pytest.raises(InputError, match='already exists, and rfn-jax prepare did not make it'):
        made(folder, tmp_path)

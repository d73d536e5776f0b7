import importlib.util
import os
import pathlib
import resource
import stat
import subprocess
import sys

import numpy as np
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations import memory

from rfn_jax.core import digests, errors, io


def test_write_bytes_makes_folders_and_replaces(tmp_path):
    path = tmp_path / 'a' / 'b' / 'file.bin'
    io.write_bytes(path, b'old')
    io.write_bytes(str(path), b'new')
    assert path.read_bytes() == b'new'
    assert os.listdir(path.parent) == ['file.bin']
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # others can read it, unlike a temporary file


@pytest.mark.parametrize('step', ['replace', 'fsync'])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / 'file.bin'
    io.write_bytes(path, b'old')

    def fail(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(errors.RunError, match=r'could not write .*file\.bin: No space left on device'):
        io.write_bytes(path, b'new')
    assert path.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['file.bin']


def test_a_disk_that_fills_up_during_the_write(tmp_path):
    path = tmp_path / 'file.bin'
    path.write_bytes(b'old')
    script = (
        'import resource, signal, sys\n'
        'from rfn_jax.core import errors, io\n'
        'signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n'
        'try:\n'
        '    io.write_bytes(sys.argv[1], b"x" * 100_000)\n'
        'except errors.RunError as error:\n'
        '    print("RunError", error)\n'
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    run = subprocess.run([sys.executable, '-c', script, path], capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f'RunError could not write {path}')
    assert path.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['file.bin']


@pytest.mark.parametrize('error', [KeyboardInterrupt, MemoryError])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, error):
    def interrupt(*args):
        raise error

    monkeypatch.setattr(os, 'fsync', interrupt)
    with pytest.raises(error):
        io.write_bytes(tmp_path / 'file.bin', b'new')
    assert os.listdir(tmp_path) == []


def test_a_path_under_a_file_is_a_run_error(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(errors.RunError, match='could not write'):
        io.write_bytes(tmp_path / 'file' / 'below', b'')


def test_json_round_trip(tmp_path):
    path = tmp_path / 'x.json'
    io.write_json(path, {'b': [1, 2.5, None], 'a': 'ü'})
    assert path.read_text().endswith('}\n')
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    assert io.read_json(path) == {'a': 'ü', 'b': [1, 2.5, None]}


def test_a_value_that_is_not_json_leaves_the_old_file(tmp_path):
    path = tmp_path / 'x.json'
    io.write_json(path, 1)
    with pytest.raises(TypeError):
        io.write_json(path, {'a': object()})
    assert io.read_json(path) == 1


@pytest.mark.parametrize('content', [b'{"a": ', b'', b'\xff\xfe'])
def test_a_damaged_json_file_is_named(tmp_path, content):
    path = tmp_path / 'x.json'
    path.write_bytes(content)
    with pytest.raises(errors.InputError, match=r'x\.json is not a JSON file'):
        io.read_json(path)


@pytest.mark.parametrize('read', [io.read_json, io.read_bytes])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(errors.InputError, match=r'could not read .*absent: No such file or directory'):
        read(tmp_path / 'absent')
    with pytest.raises(errors.InputError, match='could not read'):
        read(tmp_path)


def test_temporary_files_are_hidden_and_beside_the_target(tmp_path, monkeypatch):
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, 'replace', lambda source, target: (seen.append(source), replace(source, target)))
    io.write_bytes(tmp_path / 'file.bin', b'x')
    (source,) = map(pathlib.Path, seen)
    assert source.parent == tmp_path  # the rename does not cross file systems
    assert source.name.startswith('.file.bin.')


def test_a_link_remains_one_and_what_is_not_a_file_is_left_alone(tmp_path):
    (tmp_path / 'target').write_bytes(b'old')
    (tmp_path / 'link').symlink_to(tmp_path / 'target')
    io.write_bytes(tmp_path / 'link', b'new')
    assert (tmp_path / 'link').is_symlink()
    assert (tmp_path / 'target').read_bytes() == b'new'
    os.mkfifo(tmp_path / 'pipe')
    for write in (lambda path: io.write_bytes(path, b'new'), io.check_writable):
        for name in ('pipe', '.'):
            with pytest.raises(errors.RunError, match='it already exists and is not a file'):
                write(tmp_path / name)
    assert (tmp_path / 'pipe').is_fifo()


def test_a_file_is_checked_for_writing_without_being_changed(tmp_path):
    (tmp_path / 'f').write_bytes(b'old')
    io.check_writable(tmp_path / 'f')
    io.check_writable(tmp_path / 'new' / 'g')
    assert (tmp_path / 'f').read_bytes() == b'old'
    assert not list((tmp_path / 'new').iterdir())
    with pytest.raises(errors.RunError, match='could not write'):
        io.check_writable(tmp_path / 'f' / 'g')


def test_only_json_objects_are_accepted_as_such(tmp_path):
    io.write_json(tmp_path / 'x.json', {'a': 1})
    assert io.read_json_object(tmp_path / 'x.json') == {'a': 1}
    io.write_json(tmp_path / 'x.json', [1])
    with pytest.raises(errors.InputError, match=r'x\.json must hold a JSON object, but holds \[1\]'):
        io.read_json_object(tmp_path / 'x.json')


def test_arrays_come_back_and_nothing_is_unpickled():
    content = io.npz_bytes(a=np.arange(3), b=np.ones((2, 2), np.uint8))
    with io.npz_arrays(content) as arrays:
        np.testing.assert_array_equal(arrays['a'], np.arange(3))
        assert arrays['b'].dtype == np.uint8
    with pytest.raises(io.DAMAGED):
        io.npz_arrays(content[:10])
    with io.npz_arrays(io.npz_bytes(a=np.array([object()]))) as arrays, pytest.raises(io.DAMAGED):
        arrays['a']


@pytest.fixture
def bucket(monkeypatch):
    """A bucket in memory behind gs://."""
    monkeypatch.setattr(backend.fsspec_backend, '_get_filesystem', lambda name: memory.MemoryFileSystem())
    yield 'gs://bucket/run'
    memory.MemoryFileSystem.store.clear()


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('gs://bucket/run', 'gs://bucket/run needs a package that is not installed: pip install gcsfs'),
        ('gcs://bucket/run', "unknown kind of bucket 'gcs'; did you mean 'gs'"),
    ],
)
def test_buckets_that_cannot_be_used(path, message, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(errors.InputError, match=message):
        io.absolute(path)


def test_files_in_a_bucket(bucket):
    path = epath.Path(bucket) / 'a' / 'x.json'
    io.check_writable(path)
    io.write_json(path, {'a': 1})
    assert io.read_json(str(path)) == {'a': 1}
    io.write_bytes(path, b'other')
    assert io.read_bytes(path) == b'other'
    assert digests.of_file(path) == digests.of_bytes(b'other')
    with pytest.raises(errors.InputError, match=r'could not read gs://bucket/run/absent'):
        io.read_bytes(f'{bucket}/absent')

import dataclasses
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

from rfn_jax.core import digests, errors, io, tables


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    rate: float
    n: int
    low: float | None = None


def test_write_bytes_makes_folders_and_replaces(tmp_path):
    path = tmp_path / 'a' / 'b' / 'file.bin'
    io.write_bytes(path, b'old')
    io.write_bytes(str(path), b'new')
    assert path.read_bytes() == b'new'
    assert os.listdir(path.parent) == ['file.bin']
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # others can read it, unlike a temporary file


FULL = OSError(28, 'No space left on device')


@pytest.mark.parametrize(
    ('step', 'error', 'raised'),
    [
        ('replace', FULL, errors.RunError),
        ('fsync', FULL, errors.RunError),
        ('fsync', KeyboardInterrupt(), KeyboardInterrupt),
        ('fsync', MemoryError(), MemoryError),
    ],
)
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, error, raised):
    path = tmp_path / 'file.bin'
    io.write_bytes(path, b'old')

    def fail(*args):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(raised, match=r'could not write .*file\.bin: No space left' if error is FULL else None):
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


def test_json_round_trip(tmp_path):
    path = tmp_path / 'x.json'
    io.write_json(path, {'b': [1, 2.5, None], 'a': 'ü'})
    assert path.read_text().endswith('}\n')
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    assert io.read_json(path) == io.read_json_object(path) == {'a': 'ü', 'b': [1, 2.5, None]}
    with pytest.raises(TypeError):
        io.write_json(path, {'a': object()})
    assert io.read_json(path) == {'a': 'ü', 'b': [1, 2.5, None]}  # the old file


@pytest.mark.parametrize(
    ('read', 'content', 'message'),
    [
        (io.read_json, b'{"a": ', 'is not a JSON file'),
        (io.read_json, b'', 'is not a JSON file'),
        (io.read_json, b'\xff\xfe', 'is not a JSON file'),
        (io.read_json_object, b'[1]', r'must hold a JSON object, but holds \[1\]'),
    ],
)
def test_a_damaged_json_file_is_named(tmp_path, read, content, message):
    path = tmp_path / 'x.json'
    path.write_bytes(content)
    with pytest.raises(errors.InputError, match=rf'x\.json {message}'):
        read(path)


@pytest.mark.parametrize('read', [io.read_json, io.read_bytes, lambda path: tables.read(path, Row)])
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
    for write in (io.check_writable, lambda path: io.write_bytes(path, b'')):
        with pytest.raises(errors.RunError, match='could not write'):
            write(tmp_path / 'f' / 'below')


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


def test_format_and_round_trip_of_a_table(tmp_path):
    path = tmp_path / 'x.csv'
    rows = [
        Row('a, "b"', 1 / 3, 10),
        Row('', np.float64(1e-9), np.int64(2), 0.5),
        Row('line\nbreak', 1.0, 3, float('nan')),
    ]
    tables.write(path, Row, rows)
    assert path.read_bytes() == (
        b'name,rate,n,low\n"a, ""b""",0.333333,10,\n,0.000000,2,0.500000\n"line\nbreak",1.000000,3,nan\n'
    )
    assert tables.read(path, Row) == [
        Row('a, "b"', 0.333333, 10), Row('', 0.0, 2, 0.5), Row('line\nbreak', 1.0, 3)
    ]  # fmt: skip


def test_a_table_without_rows_has_its_header(tmp_path):
    tables.write(tmp_path / 'x.csv', Row, [])
    assert (tmp_path / 'x.csv').read_text() == 'name,rate,n,low\n'
    assert tables.read(tmp_path / 'x.csv', Row) == []


def test_further_columns_of_a_table_are_ignored(tmp_path):
    (tmp_path / 'x.csv').write_text('n,more,name,rate,low\n1,2,a,0.5,\n')
    assert tables.read(tmp_path / 'x.csv', Row) == [Row('a', 0.5, 1)]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', r'x\.csv is empty'),
        (b'a,b\n\xff\xfe,1\n', r'x\.csv is not a CSV file'),
        (b'name,rate,n\na,0.5,1\n', r"x\.csv has no column 'low'"),
        (b'name,rate,n,low\na,0.5,1.5,\n', r"x\.csv, line 2: n is '1\.5', not an integer"),
        (b'name,rate,n,low\na,0.5,1,\nb,nan,1,\n', r"x\.csv, line 3: rate is 'nan', not a number"),
        (b'name,rate,n,low\na,0.5,1,x\n', r"line 2: low is 'x', not a number"),
        (b'name,rate,n,low\na,0.5\n', r'line 2: n is None, not an integer'),
    ],
)
def test_the_error_for_a_bad_table_is_one_line_that_names_the_place(tmp_path, content, message):
    (tmp_path / 'x.csv').write_bytes(content)
    with pytest.raises(errors.InputError, match=message) as caught:
        tables.read(tmp_path / 'x.csv', Row)
    assert '\n' not in str(caught.value)

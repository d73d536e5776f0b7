import hashlib
import os
import pathlib
import resource
import stat
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.core import errors, files


def test_write_bytes_makes_folders_and_replaces(tmp_path):
    path = tmp_path / 'a' / 'b' / 'file.bin'
    files.write_bytes(path, b'old')
    files.write_bytes(str(path), b'new')
    assert path.read_bytes() == b'new'
    assert os.listdir(path.parent) == ['file.bin']
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # others can read it, unlike a temporary file


@pytest.mark.parametrize('step', ['replace', 'fsync'])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / 'file.bin'
    files.write_bytes(path, b'old')

    def fail(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(errors.RunError, match=r'could not write .*file\.bin: No space left on device'):
        files.write_bytes(path, b'new')
    assert path.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['file.bin']


def test_a_disk_that_fills_up_during_the_write(tmp_path):
    path = tmp_path / 'file.bin'
    path.write_bytes(b'old')
    script = (
        'import resource, signal, sys\n'
        'from rfn_jax.core import errors, files\n'
        'signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n'
        'try:\n'
        '    files.write_bytes(sys.argv[1], b"x" * 100_000)\n'
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
        files.write_bytes(tmp_path / 'file.bin', b'new')
    assert os.listdir(tmp_path) == []


def test_a_path_under_a_file_is_a_run_error(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(errors.RunError, match='could not write'):
        files.write_bytes(tmp_path / 'file' / 'below', b'')


def test_json_round_trip(tmp_path):
    path = tmp_path / 'x.json'
    files.write_json(path, {'b': [1, 2.5, None], 'a': 'ü'})
    assert path.read_text().endswith('}\n')
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    assert files.read_json(path) == {'a': 'ü', 'b': [1, 2.5, None]}


def test_a_value_that_is_not_json_leaves_the_old_file(tmp_path):
    path = tmp_path / 'x.json'
    files.write_json(path, 1)
    with pytest.raises(TypeError):
        files.write_json(path, {'a': object()})
    assert files.read_json(path) == 1


@pytest.mark.parametrize('content', [b'{"a": ', b'', b'\xff\xfe'])
def test_a_damaged_json_file_is_named(tmp_path, content):
    path = tmp_path / 'x.json'
    path.write_bytes(content)
    with pytest.raises(errors.InputError, match=r'x\.json is not a JSON file'):
        files.read_json(path)


@pytest.mark.parametrize('read', [files.read_json, files.read_csv])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(errors.InputError, match=r'could not read .*absent: No such file or directory'):
        read(tmp_path / 'absent')
    with pytest.raises(errors.InputError, match='could not read'):
        read(tmp_path)


def test_csv_format(tmp_path):
    path = tmp_path / 'x.csv'
    rows = [
        {'name': 'a, "b"', 'rate': 1 / 3, 'n': 10},
        {'n': np.int64(2), 'rate': np.float64(1e-9), 'name': ''},
        {'name': 'line\nbreak', 'rate': float('nan'), 'n': True},
    ]
    files.write_csv(path, ['name', 'rate', 'n'], rows)
    assert path.read_bytes() == (b'name,rate,n\n"a, ""b""",0.333333,10\n,0.000000,2\n"line\nbreak",nan,True\n')
    assert files.read_csv(path) == [
        {'name': 'a, "b"', 'rate': '0.333333', 'n': '10'},
        {'name': '', 'rate': '0.000000', 'n': '2'},
        {'name': 'line\nbreak', 'rate': 'nan', 'n': 'True'},
    ]


def test_csv_without_rows_has_its_header(tmp_path):
    files.write_csv(tmp_path / 'x.csv', ['a', 'b'], [])
    assert (tmp_path / 'x.csv').read_text() == 'a,b\n'
    assert files.read_csv(tmp_path / 'x.csv') == []


def test_a_csv_row_with_another_key_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / 'x.csv'
    files.write_csv(path, ['a'], [{'a': 1}])
    with pytest.raises(ValueError, match='b'):
        files.write_csv(path, ['a'], [{'a': 1, 'b': 2}])
    assert path.read_text() == 'a\n1\n'


def test_a_csv_file_that_is_not_text_is_an_input_error(tmp_path):
    (tmp_path / 'x.csv').write_bytes(b'a,b\n\xff\xfe,1\n')
    with pytest.raises(errors.InputError, match=r'x\.csv'):
        files.read_csv(tmp_path / 'x.csv')


def tree():
    return {'w': np.arange(6, dtype=np.float32).reshape(2, 3), 'b': [np.zeros((), np.int32)]}


def test_array_digest_is_the_same_for_the_same_arrays():
    digest = files.array_digest(tree())
    assert len(digest) == 64
    assert digest == files.array_digest({name: tree()[name] for name in ('b', 'w')})  # whatever the order
    assert digest == files.array_digest({'w': jnp.asarray(tree()['w']), 'b': tree()['b']})  # wherever they lie
    assert digest == files.array_digest({'w': np.asfortranarray(tree()['w']), 'b': tree()['b']})


@pytest.mark.parametrize(
    'change',
    [
        lambda t: t['w'].__setitem__((1, 2), np.nextafter(np.float32(5), np.float32(6))),
        lambda t: t['b'][0].__setitem__((), 1),
        lambda t: t.__setitem__('v', t.pop('w')),
        lambda t: t.__setitem__('w', t['w'].view(np.int32)),
        lambda t: t.__setitem__('w', t['w'].reshape(3, 2)),
        lambda t: t.__setitem__('w', t['w'].T),
        lambda t: t.__setitem__('b', t['b'] * 2),
        lambda t: t['b'].__setitem__(0, t['b'][0].reshape(1)),
    ],
    ids=['value', 'scalar', 'name', 'dtype', 'shape', 'transpose', 'leaves', 'rank'],
)
def test_array_digest_changes_with(change):
    changed = tree()
    change(changed)
    assert files.array_digest(changed) != files.array_digest(tree())


def test_temporary_files_are_hidden_and_beside_the_target(tmp_path, monkeypatch):
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, 'replace', lambda source, target: (seen.append(source), replace(source, target)))
    files.write_bytes(tmp_path / 'file.bin', b'x')
    (source,) = map(pathlib.Path, seen)
    assert source.parent == tmp_path  # the rename does not cross file systems
    assert source.name.startswith('.file.bin.')


def test_the_hash_of_a_file_is_that_of_its_content(tmp_path):
    content = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / 'f').write_bytes(content)
    assert files.file_sha256(tmp_path / 'f') == hashlib.sha256(content).hexdigest()
    for path, reason in ((tmp_path / 'absent', 'No such file'), (tmp_path, 'directory')):
        with pytest.raises(errors.InputError, match=reason):
            files.file_sha256(path)


def test_a_link_stays_one_and_what_is_no_file_is_left_alone(tmp_path):
    (tmp_path / 'target').write_bytes(b'old')
    (tmp_path / 'link').symlink_to(tmp_path / 'target')
    files.write_bytes(tmp_path / 'link', b'new')
    assert (tmp_path / 'link').is_symlink()
    assert (tmp_path / 'target').read_bytes() == b'new'
    os.mkfifo(tmp_path / 'pipe')
    for write in (lambda path: files.write_bytes(path, b'new'), files.check_writable):
        for name in ('pipe', '.'):
            with pytest.raises(errors.RunError, match='it is there already, and not a file'):
                write(tmp_path / name)
    assert (tmp_path / 'pipe').is_fifo()


def test_whether_a_file_can_be_written_is_seen_without_writing_it(tmp_path):
    (tmp_path / 'f').write_bytes(b'old')
    files.check_writable(tmp_path / 'f')
    files.check_writable(tmp_path / 'new' / 'g')
    assert (tmp_path / 'f').read_bytes() == b'old'
    assert not list((tmp_path / 'new').iterdir())
    with pytest.raises(errors.RunError, match='could not write'):
        files.check_writable(tmp_path / 'f' / 'g')

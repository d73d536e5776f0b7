import pathlib
import resource
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from rfn_jax import models, training
from rfn_jax.core import errors, rng


@pytest.fixture
def store(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    with training.CheckpointStore(tmp_path / 'checkpoints', keep_all=True) as opened:
        yield opened


STATE = training.TrainState(np.int32(0), {'w': np.ones(2)}, {}, ())


def template(bench):
    return training.create(bench.classifier, bench.optimizer())


def array_files(directory: pathlib.Path):
    return [path for path in sorted(pathlib.Path(directory).rglob('d/*')) if path.is_file()]


def test_classifier_gets_the_saved_variables_for_which_shapes_suffice_as_a_template(bench, store):
    saved = store.restore(2, template(bench))
    for like in (bench.classifier, jax.eval_shape(lambda: bench.classifier)):
        params = store.restore_classifier(2, like).variables['params']
        jax.tree.map(np.testing.assert_array_equal, params, saved.params)
    assert not np.array_equal(params['fc']['kernel'], bench.classifier.variables['params']['fc']['kernel'])
    assert int(saved.step) == 8


@pytest.mark.accelerator
def test_one_flipped_byte_is_noticed(bench, store):
    path = max(array_files(store.directory / '2' / 'variables'), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 4, len(content), max(1, len(content) // 16)):
        content[place] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(errors.RunError, match=r'could not read checkpoint .*/checkpoints/2: '):
        store.restore_classifier(2, bench.classifier)
    store.restore_classifier(1, bench.classifier)  # the previous epoch is intact


META = [
    *('{', '[1]', '3', 'null', '"x"', '{}', '{"leaves": [], "sha256": {}}'),
    '{"leaves": {"variables": [], "optimizer": {}}, "sha256": {"variables": "", "optimizer": ""}}',
    '{"leaves": {"variables": {}, "optimizer": {}}, "sha256": {"variables": 1, "optimizer": ""}}',
]


@pytest.mark.parametrize('damage', ['truncate', 'delete', 'metadata', *META])
def test_other_damage_is_one_clear_line(bench, store, damage):
    folder = pathlib.Path(store.directory) / '2'
    if damage in ('truncate', 'delete'):
        for path in array_files(folder):
            path.write_bytes(path.read_bytes()[:10]) if damage == 'truncate' else path.unlink()
    elif damage == 'metadata':
        (folder / 'variables' / '_METADATA').write_bytes(b'\xff{')
    else:
        (folder / 'meta' / 'metadata').write_text(damage)
    with pytest.raises(errors.RunError, match=r'could not read checkpoint .*/checkpoints/2: ') as raised:
        store.restore_classifier(2, bench.classifier)
    assert '\n' not in str(raised.value)
    if damage in META:
        for read in (store.digest, lambda epoch: store.check_classifier(epoch, bench.classifier)):
            with pytest.raises(errors.RunError, match=r'could not read checkpoint .*/checkpoints/2: '):
                read(2)


def test_a_missing_epoch_and_a_checkpoint_of_another_model_are_refused(bench, store):
    with pytest.raises(errors.RunError, match=r'could not read checkpoint .*/checkpoints/7'):
        store.restore_classifier(7, bench.classifier)
    module = models.MODELS.make('mlp', num_classes=10, widths=(16,))
    other = models.initialize(module, rng.key_for(0, 'other'), (8, 8, 1), num_classes=10)
    with pytest.raises(errors.InputError, match='belongs to another model or optimizer'):
        store.restore_classifier(2, other)


def test_a_directory_that_cannot_be_created(tmp_path):
    (tmp_path / 'file').write_text('')
    store = training.CheckpointStore(tmp_path / 'file' / 'checkpoints')
    assert store.epochs() == []
    with pytest.raises(errors.RunError, match=r'cannot use .*file/checkpoints for checkpoints: Not a directory'):
        store.save(1, STATE)
    with pytest.raises(errors.RunError, match=r'could not read .*file: NotADirectoryError'):
        training.CheckpointStore(tmp_path / 'file').epochs()


def test_a_checkpoint_counts_only_when_it_is_complete(tmp_path):
    with training.CheckpointStore(tmp_path) as store:
        assert store.epochs() == store.resumable_epochs() == []
        store.wait()
        assert list(tmp_path.iterdir()) == []  # nothing is created before the first save
        large = STATE.replace(params={'w': np.zeros(3_000_000)})
        store.save(1, large)
        seen = store.epochs(), [path.name for path in tmp_path.iterdir()]
        store.wait()
        assert store.epochs() == [1]
    assert seen == ([], ['1.orbax-checkpoint-tmp']) or seen[0] == [1]  # in case the disk was that fast


def test_a_partially_deleted_state_is_not_a_state(tmp_path, monkeypatch):
    with training.CheckpointStore(tmp_path) as store:
        for epoch in (1, 2):
            store.save(epoch, STATE)
    with monkeypatch.context() as patch:
        patch.setattr(type(store.directory), 'rmtree', lambda *_, **__: (_ for _ in ()).throw(OSError('killed')))
        store.delete_optimizers(keep=[2])
    assert (tmp_path / '1' / 'optimizer').exists()
    assert store.resumable_epochs() == [2]
    store.delete_optimizers(keep=[2])
    assert not (tmp_path / '1' / 'optimizer').exists()
    np.testing.assert_array_equal(store.restore(2, STATE).params['w'], STATE.params['w'])
    assert store.epochs() == [1, 2]


def test_reading_changes_nothing(bench, tmp_path):
    with training.CheckpointStore(tmp_path) as store:
        for epoch in (1, 2, 3):  # each with the state of the optimizer
            store.save(epoch, template(bench))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    with training.CheckpointStore(tmp_path, keep_all=False) as store:
        assert store.epochs() == store.resumable_epochs() == [1, 2, 3]
        store.digest(1)
        store.restore_classifier(2, bench.classifier)
        store.restore(3, template(bench))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before


FULL_DISK = """
import resource, signal, sys
import numpy as np
from rfn_jax import training
from rfn_jax.core import errors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def state(value, size):
    return training.TrainState(np.int32(0), {'w': np.random.default_rng(0).random(size) + value}, {}, ())

store = training.CheckpointStore(sys.argv[1], keep_all=True)
store.save(1, state(1.0, 100))
store.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))  # no larger files, as on a full disk
try:
    store.save(2, state(2.0, 1_000_000))
    store.wait()
except errors.RunError as error:
    print('RunError:', error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.close()
"""


def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    run = subprocess.run([sys.executable, '-c', FULL_DISK, str(tmp_path / 'c')], capture_output=True, text=True)
    lines = [line for line in run.stdout.splitlines() if line.startswith('RunError')]
    assert run.returncode == 0, run.stderr
    assert len(lines) == 1, run.stdout + run.stderr
    assert 'could not save checkpoints in' in lines[0]
    assert 'too large' in lines[0]
    with training.CheckpointStore(tmp_path / 'c', keep_all=True) as store:
        assert store.epochs() == [1]
        saved = store.restore(1, training.TrainState(np.int32(0), {'w': np.zeros(100)}, {}, ()))
    np.testing.assert_array_equal(saved.params['w'], np.random.default_rng(0).random(100) + 1.0)

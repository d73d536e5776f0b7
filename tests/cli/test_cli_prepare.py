import os
import pathlib
import signal
import subprocess
import sys
import time

import image_files
import pytest

from rfn_jax.cli import main
from rfn_jax.data import SOURCES


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return image_files.write_folder(tmp_path_factory.mktemp('images') / 'pics')


def test_a_folder_becomes_a_data_set_that_a_config_reads(folder, tmp_path, capsys):
    arguments = ['prepare', f'--images={folder}', f'--out={tmp_path}', '--name=insects', '--max-side=10', '--workers=1']
    assert main.main(arguments) == 0
    printed = capsys.readouterr().out
    assert 'train: 21 images in 3 classes, 1 shards' in printed
    assert "{'name': 'tfds', 'dataset': 'insects', 'data_dir': '" + str(tmp_path) in printed
    assert len(SOURCES.make('tfds', dataset='insects', data_dir=str(tmp_path), image_size=8).test) == 21
    assert main.main(arguments) == 0
    assert 'is already finished' in capsys.readouterr().out
    assert main.main([*arguments, '--max_side=11']) == 2
    assert 'made with max_side 10, not 11' in capsys.readouterr().err


def test_archives_become_the_same_data_set(folder, tmp_path):
    archives = image_files.write_archives(folder, tmp_path)
    common = ['--name=insects', '--workers=1']
    given = [f'--train-archive={archives / "train.tar"}', f'--validation-archive={archives / "val.tar"}']
    given.append(f'--validation-labels={archives / "labels.txt"}')
    assert main.main(['prepare', *given, *common, f'--out={tmp_path / "a"}']) == 0
    assert main.main(['prepare', f'--images={folder}', *common, f'--out={tmp_path / "b"}']) == 0
    ours, theirs = (image_files.contents(tmp_path / name / 'insects' / '1.0.0') for name in 'ab')
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} == {'manifest.json'}


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_continues(tmp_path):
    images = image_files.write_folder(tmp_path / 'images', count=30)
    arguments = ['prepare', f'--images={images}', '--name=insects', '--shard-mb=0.0005', '--workers=2']
    process = subprocess.Popen(
        [sys.executable, '-m', 'rfn_jax', *arguments, f'--out={tmp_path / "killed"}'],
        env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
        stdout=subprocess.DEVNULL,
    )
    final = tmp_path / 'killed' / 'insects' / '1.0.0'
    parts = final.with_name('1.0.0.incomplete') / 'parts'
    try:
        for _ in range(6000):
            if (parts.exists() and len(list(parts.iterdir())) > 2) or process.poll() is not None:
                break
            time.sleep(0.01)
        children = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert children
    assert not final.exists()
    for _ in range(1000):
        if not any(pathlib.Path(f'/proc/{child}/cmdline').exists() for child in children):
            break
        time.sleep(0.01)
    else:
        pytest.fail('a worker is still running')
    made = {
        file.name: file.stat().st_mtime_ns
        for file in (parts.parent / 'data').iterdir()
        if (parts / f'{file.name}.json').exists()
    }
    assert main.main([*arguments, f'--out={tmp_path / "killed"}']) == 0
    assert {name: (final / name).stat().st_mtime_ns for name in made} == made
    assert main.main([*arguments[:-1], '--workers=1', f'--out={tmp_path / "whole"}']) == 0
    assert image_files.contents(tmp_path / 'killed') == image_files.contents(tmp_path / 'whole')


def test_help_shows_examples_and_every_flag(capsys):
    with pytest.raises(SystemExit) as stopped:
        main.main(['prepare', '--help'])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    for word in ('rfn-jax prepare --images=pets', 'ILSVRC2012_img_train.tar', '--corrupt', '--workers', '--max_side'):
        assert word in printed
    main.main(['list', 'datasets'])
    assert 'rfn-jax prepare' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ('--out=', 'rfn-jax prepare needs --out'),
        ('--name=', 'rfn-jax prepare needs --name'),
        ('--images=', 'needs --images=FOLDER, or --train-archive=FILE'),
        ('--train-archive=t.tar', 'needs --images=FOLDER, or'),
        ('--validation-ids=t', '--validation_ids goes with --train-archive'),
        ('--images=nowhere', 'nowhere does not exist'),
        ('--images=empty', 'empty has 0 folders of classes; at least 2 are needed'),
        ('--images=one', 'one has 1 folders of classes; at least 2 are needed'),
        ('--images=bare', 'bare/a has no image (.bmp'),
        ('--classes=text.txt', 'is a class that text.txt does not have'),
        ('--workers=0', 'workers must be an integer of at least 1, got 0'),
        ('--workers=two', 'flag --workers=two'),
        ('--corrupt=no', "unknown value of corrupt: 'no'"),
        ('--max-side=0', 'max_side must be an integer of at least 1, got 0'),
        ('--test-fraction=1', 'test_fraction must be a finite number'),
        ('--name=X', 'name must be lowercase letters, digits and _'),
        ('--out=text.txt', 'could not write'),
        ('--out=/proc/o', 'could not write'),
        ('--images= --train-archive=text.txt', 'text.txt is cut off or damaged'),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_writes_nothing(flags, message, folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path('text.txt').write_text('x\ny\n')
    pathlib.Path('empty').mkdir()
    pathlib.Path('one/a').mkdir(parents=True)
    pathlib.Path('bare/a').mkdir(parents=True)
    pathlib.Path('bare/b').mkdir(parents=True)
    pathlib.Path('pics').symlink_to(folder)
    before = sorted(tmp_path.rglob('*'))
    assert main.main(['prepare', '--out=o', '--name=x', '--images=pics', *flags.split()]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert sorted(tmp_path.rglob('*')) == before

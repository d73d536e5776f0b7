import shutil

import pytest
import small_experiment

from rfn_jax.cli import main

CONFIG = f'--config={small_experiment.__file__}'
RUN = (CONFIG, '--config.seeds=1')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp('run')
    assert main.main(['run', *RUN, f'--workdir={directory}']) == 0
    return directory


def refused(capsys, *arguments):
    """The one line that a refused command prints."""
    status = main.main(list(arguments))
    printed = capsys.readouterr()
    assert status == 2, printed
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1, printed.err
    assert lines[0].startswith('rfn-jax: ')
    return lines[0]


def test_run_prints_the_tables_and_leaves_a_report(finished, capsys):
    assert main.main(['run', *RUN, f'--workdir={finished}']) == 0
    printed = capsys.readouterr().out
    for word in ('sgd', 'early_stopped', 'rfn', 'white', 'index.html'):
        assert word in printed
    page = (finished / 'report' / 'index.html').read_text()
    assert '<html' in page
    assert '<svg' in page
    assert 'train' not in printed.split('resnet attacked')[0]  # nothing was trained again


def test_stages_run_one_by_one_give_the_results_of_a_run(finished, tmp_path):
    for stage in ('train', 'select', 'craft', 'measure', 'report'):
        assert main.main([stage, *RUN, f'--workdir={tmp_path}']) == 0
    for name in ('transfer.csv', 'summary.csv'):
        assert (tmp_path / 'results' / name).read_bytes() == (finished / 'results' / name).read_bytes()


@pytest.mark.parametrize('command', ['quickstart', 'run', 'train', 'select', 'craft', 'measure', 'report'])
def test_help_shows_the_flags(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main.main([command, '--help'])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert '--config' in printed
    assert '--workdir' in printed


def test_train_can_be_limited_to_some_networks(tmp_path, capsys):
    assert main.main(['train', *RUN, f'--workdir={tmp_path}', '--only=targets/mlp,surrogates/resnet-sgd']) == 0
    trained = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob('metrics.jsonl')}
    assert trained == {'targets/mlp', 'surrogates/resnet-sgd/seed0'}
    capsys.readouterr()
    message = refused(capsys, 'train', f'--workdir={tmp_path}', '--only=targets/mpl')
    assert "unknown network 'targets/mpl'; did you mean 'targets/mlp'" in message
    refused(capsys, 'train', *RUN, f'--workdir={tmp_path / "new"}', '--only=targets/mpl')
    assert not (tmp_path / 'new').exists()


def test_a_work_directory_continues_with_its_last_config(finished, tmp_path):
    shutil.copytree(finished, tmp_path / 'copy')
    (tmp_path / 'copy' / 'results' / 'transfer.csv').unlink()
    assert main.main(['measure', f'--workdir={tmp_path / "copy"}']) == 0
    table = 'results/transfer.csv'
    assert (tmp_path / 'copy' / table).read_bytes() == (finished / table).read_bytes()


def test_a_flag_and_its_value_may_be_two_arguments(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ('run', '--config', small_experiment.__file__, '--workdir', 'x', '--config.optim.epochs=0')
    assert 'epochs must be an integer of at least 1, got 0' in refused(capsys, *arguments)


def test_usage(capsys):
    assert main.main(['--help']) == 0
    assert main.main([]) == 2
    assert 'quickstart' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['quickstrat'], "unknown command 'quickstrat'; did you mean 'quickstart'"),
        (['run', '--workdir=x'], 'x is not a work directory yet: rfn-jax run needs --config=FILE'),
        (['run', '--workdir=x', '--config.optim.rho=1'], 'overrides such as --config.KEY=VALUE need --config=FILE'),
        (['run', CONFIG], 'rfn-jax run needs --workdir=DIRECTORY'),
        (['run', '--config=missing.py', '--workdir=x'], 'missing.py'),
        (['run', CONFIG, '--workdri=x'], 'workdri'),
        (['run', CONFIG, '--workdir=x', 'more'], "unexpected argument 'more'"),
        (['run', CONFIG, '--workdir=x', '--config.optim.rhoo=0.2'], 'Did you mean "rho"'),
        (['run', CONFIG, '--workdir=x', '--config.optm.rho=0.2'], 'Did you mean "optim"'),
        (['run', CONFIG, '--workdir=x', '--config.optim.rho=large'], '--config.optim.rho=large'),
        (['run', CONFIG, '--workdir=x', '--config.optim.rho=-1'], 'rho must be a finite number at least 0, got -1.0'),
        (
            ['run', CONFIG, '--workdir=x', '--config.attacks.bim.eps=-1'],
            'eps must be a finite number above 0, got -1.0',
        ),
        (['run', CONFIG, '--workdir=x', '--config.attacks.bim.name=bimm'], "unknown attack 'bimm'; did you mean 'bim'"),
        (['run', CONFIG, '--workdir=x', '--config.targets.mlp.model.name=mpl'], "unknown model 'mpl'; did you mean"),
        (
            ['run', CONFIG, '--workdir=x', '--config.data.name=cifar'],
            "unknown data set 'cifar'; did you mean 'cifar10'",
        ),
        (['list', 'model'], "unknown table 'model'; did you mean 'models'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_data_set_names_the_directory(capsys, tmp_path):
    from rfn_jax.configs import cifar10_cpu

    line = refused(
        capsys, 'train', f'--config={cifar10_cpu.__file__}', f'--workdir={tmp_path / "w"}',
        f'--config.data.data_dir={tmp_path / "nothing"}',
    )  # fmt: skip
    assert f'no CIFAR-10 prepared by TFDS as array_record in {tmp_path / "nothing"}' in line


def test_a_workdir_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / 'file').write_text('')
    line = refused(capsys, 'run', CONFIG, f'--workdir={tmp_path / "file" / "work"}')
    assert 'cannot write to the work directory' in line
    assert 'Not a directory' in line


def test_another_config_is_refused_with_what_differs(finished, capsys):
    line = refused(capsys, 'run', *RUN, f'--workdir={finished}', '--config.optim.rho=0.1')
    assert 'trainings.rfn.rho was 0.4 and is now 0.1' in line


def test_a_report_of_another_config_is_refused(finished, capsys):
    line = refused(capsys, 'report', *RUN, f'--workdir={finished}', '--config.evaluation.examples=10')
    assert 'was last used with another config: evaluation.examples was 60 and is now 10' in line
    assert main.main(['report', *RUN, f'--workdir={finished}']) == 0


def test_a_diverged_run_is_one_line_and_status_1(capsys, tmp_path):
    status = main.main(['train', CONFIG, f'--workdir={tmp_path}', '--config.optim.learning_rate=1e30'])
    printed = capsys.readouterr()
    assert status == 1
    assert len(printed.err.strip().splitlines()) == 1
    assert 'the loss is' in printed.err


def test_report_without_results_says_what_to_run(capsys, tmp_path):
    assert 'rfn-jax' in refused(capsys, 'report', CONFIG, f'--workdir={tmp_path / "new"}')


def test_list_shows_every_table(capsys):
    assert main.main(['list']) == 0
    printed = capsys.readouterr().out
    for word in (
        'models:',
        'resnet18',
        'attacks:',
        'mi_fgsm',
        'minimizers:',
        'rfn_sam',
        'datasets:',
        'digits',
        'cifar10.py',
    ):
        assert word in printed
    assert main.main(['list', 'attacks']) == 0
    assert 'resnet18' not in capsys.readouterr().out


def test_quickstart_uses_the_digits_config_and_a_directory_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, 'quickstart', '--config.optim.epochs=0')
    assert 'epochs must be an integer of at least 1, got 0' in line
    assert list(tmp_path.iterdir()) == []

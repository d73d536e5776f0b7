import pytest
import small_experiment

from rfn_jax.cli import main
from rfn_jax.configs import cifar10_cpu

CONFIG = f'--config={small_experiment.__file__}'
RUN = ('run', CONFIG, '--workdir=x')


def test_run_prints_the_tables_and_leaves_a_report(copy, capsys):
    assert main.main(['run', CONFIG, f'--workdir={copy}']) == 0
    printed = capsys.readouterr().out
    for word in ('sgd', 'early_stopped', 'rfn', 'white', 'index.html'):
        assert word in printed
    page = (copy / 'report' / 'index.html').read_text()
    assert '<html' in page
    assert '<svg' in page
    assert 'train' not in printed.split('small attacked')[0]  # nothing was trained again


@pytest.mark.slow
def test_stages_run_one_by_one_give_the_results_of_a_run(finished, tmp_path):
    for stage in ('train', 'select', 'craft', 'measure', 'report'):
        assert main.main([stage, CONFIG, f'--workdir={tmp_path}']) == 0
    for name in ('transfer.csv', 'summary.csv'):
        assert (tmp_path / 'results' / name).read_bytes() == (finished / 'results' / name).read_bytes()


@pytest.mark.parametrize(
    ('command', 'flags'),
    [
        *((name, ('--config', '--workdir')) for name in main.STAGES),
        *((name, ('--naming', '--out')) for name in ('import-weights', 'export-weights')),
        ('bench', ('--models', '--compare')),
    ],
)
def test_help_shows_the_flags(command, flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        main.main([command, '--help'])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert all(flag in printed for flag in flags)


@pytest.mark.slow
def test_train_can_be_limited_to_some_networks(tmp_path, refused):
    assert main.main(['train', CONFIG, f'--workdir={tmp_path}', '--only=targets/mlp,surrogates/small-sgd']) == 0
    trained = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob('metrics.jsonl')}
    assert trained == {'targets/mlp', 'surrogates/small-sgd/seed0', 'surrogates/small-sgd/seed1'}
    message = refused('train', f'--workdir={tmp_path}', '--only=targets/mpl')
    assert "unknown network 'targets/mpl'; did you mean 'targets/mlp'" in message
    refused('train', CONFIG, f'--workdir={tmp_path / "new"}', '--only=targets/mpl')
    assert not (tmp_path / 'new').exists()


def test_a_work_directory_continues_with_its_last_config(finished, copy):
    table = 'results/transfer.csv'
    (copy / table).unlink()
    assert main.main(['measure', f'--workdir={copy}']) == 0
    assert (copy / table).read_bytes() == (finished / table).read_bytes()


def test_usage(capsys):
    assert main.main(['--help']) == 0
    assert main.main([]) == 2
    assert 'quickstart' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['quickstrat'], "unknown command 'quickstrat'; did you mean 'quickstart'"),
        (['quickstart', '--config.optim.epochs=0'], 'epochs must be an integer of at least 1, got 0'),
        (['run', '--workdir=x'], 'x is not a work directory yet: rfn-jax run needs --config=FILE'),
        (['run', '--workdir=x', '--config.optim.rho=1'], 'overrides such as --config.KEY=VALUE need --config=FILE'),
        (['run', CONFIG], 'rfn-jax run needs --workdir=DIRECTORY'),
        (['run', '--config=missing.py', '--workdir=x'], 'missing.py'),
        (['run', CONFIG, '--workdri=x'], 'workdri'),
        ([*RUN, 'more'], "unexpected argument 'more'"),
        ([*RUN, '--config.optim.rhoo=0.2'], 'Did you mean "rho"'),
        ([*RUN, '--config.optm.rho=0.2'], 'Did you mean "optim"'),
        ([*RUN, '--config.optim.rho=large'], '--config.optim.rho=large'),
        ([*RUN, '--config.optim.rho=-1'], 'rho must be a finite number at least 0, got -1.0'),
        ([*RUN, '--config.attacks.bim.eps=-1'], 'eps must be a finite number above 0, got -1.0'),
        ([*RUN, '--config.attacks.bim.name=bimm'], "unknown attack 'bimm'; did you mean 'bim'"),
        ([*RUN, '--config.targets.mlp.model.name=mpl'], "unknown model 'mpl'; did you mean"),
        ([*RUN, '--config.data.name=cifar'], "unknown data set 'cifar'; did you mean 'cifar10'"),
        (  # a flag and its value may be two arguments
            ['run', '--config', small_experiment.__file__, '--workdir', 'x', '--config.optim.epochs=0'],
            'epochs must be an integer of at least 1, got 0',
        ),
        (
            ['train', f'--config={cifar10_cpu.__file__}', '--workdir=x', '--config.data.data_dir=nothing'],
            'found no cifar10 prepared by TFDS as array_record in nothing',
        ),
        (['report', CONFIG, '--workdir=x'], 'rfn-jax'),
        (['list', 'model'], "unknown table 'model'; did you mean 'models'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, message, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_workdir_that_cannot_be_written(refused, tmp_path):
    (tmp_path / 'file').write_text('')
    line = refused('run', CONFIG, f'--workdir={tmp_path / "file" / "work"}')
    assert 'cannot write to the work directory' in line
    assert 'Not a directory' in line


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('run', '--config.optim.rho=0.1'), 'trainings.rfn.rho was 0.4 and is now 0.1'),
        (
            ('report', '--config.evaluation.examples=10'),
            'was last used with another config: evaluation.examples was 60 and is now 10',
        ),
    ],
)
def test_another_config_is_refused_with_what_differs(finished, refused, arguments, message):
    assert message in refused(arguments[0], CONFIG, f'--workdir={finished}', *arguments[1:])


def test_a_diverged_run_is_one_line_and_status_1(refused, tmp_path):
    arguments = ('--only=targets/mlp', '--config.optim.learning_rate=1e30')
    assert 'the loss is' in refused('train', CONFIG, f'--workdir={tmp_path}', *arguments, status=1)


def test_list_shows_every_table(capsys):
    assert main.main(['list']) == 0
    printed = capsys.readouterr().out
    for table, name in (
        ('models:', 'resnet18'), ('attacks:', 'mi_fgsm'), ('minimizers:', 'rfn_sam'), ('datasets:', 'digits')
    ):  # fmt: skip
        assert table in printed
        assert name in printed
    assert 'cifar10.py' in printed
    assert main.main(['list', 'attacks']) == 0
    assert 'resnet18' not in capsys.readouterr().out


@pytest.mark.parametrize('command', ['craft', 'measure', 'select'])
def test_a_stage_of_a_finished_run_has_nothing_to_do(copy, command):
    before = {path: path.read_bytes() for path in copy.glob('results/*.csv')}
    assert main.main([command, f'--workdir={copy}']) == 0
    assert {path: path.read_bytes() for path in copy.glob('results/*.csv')} == before

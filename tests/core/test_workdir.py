import json
import os

import pytest

from rfn_jax.core import errors, workdir


def config(**changes):
    return {
        'seed': 0,
        'optim': {'rho': 0.4, 'epochs': (50, 100)},
        'data': {'name': 'digits', 'data_dir': '/a'},
    } | changes


def test_bind_writes_the_config_once(tmp_path):
    directory = workdir.bind(tmp_path / 'new' / 'run', config())
    assert directory == tmp_path / 'new' / 'run'
    written = (directory / 'config.json').read_text()
    assert json.loads(written)['optim'] == {'rho': 0.4, 'epochs': [50, 100]}
    assert workdir.bind(str(directory), config()) == directory
    assert (directory / 'config.json').read_text() == written


def test_another_place_of_the_data_is_the_same_config(tmp_path):
    workdir.bind(tmp_path, config())
    workdir.bind(tmp_path, config(data={'name': 'digits', 'data_dir': None}))
    workdir.bind(tmp_path, config(data={'name': 'digits'}))
    with pytest.raises(errors.InputError, match=r"data\.name is 'digits' there and 'cifar10' here"):
        workdir.bind(tmp_path, config(data={'name': 'cifar10', 'data_dir': '/a'}))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'optim': {'rho': 0.05, 'epochs': (50, 100)}}, r'optim\.rho is 0\.4 there and 0\.05 here'),
        ({'optim': {'rho': 0.4, 'epochs': (50,)}}, r'optim\.epochs is \[50, 100\] there and \[50\] here'),
        ({'optim': {'rho': 0.4}}, r"optim\.epochs is \[50, 100\] there and 'absent' here"),
        ({'attack': 'bim'}, r"attack is 'absent' there and 'bim' here"),
        ({'seed': None}, r'seed is 0 there and None here'),
        ({'optim': {}}, r"optim\.rho is 0\.4 there and 'absent' here"),
        ({'attack': None}, r"attack is 'absent' there and None here"),
    ],
)
def test_another_config_is_refused_and_the_difference_named(tmp_path, changes, message):
    workdir.bind(tmp_path, config())
    with pytest.raises(errors.InputError, match=message) as raised:
        workdir.bind(tmp_path, config(**changes))
    assert str(tmp_path) in str(raised.value)
    workdir.bind(tmp_path, config())  # the refusal changed nothing


def test_at_most_five_differences_are_listed(tmp_path):
    workdir.bind(tmp_path, {f'k{i}': i for i in range(8)})
    with pytest.raises(errors.InputError, match=r'k4 is 4 there.*\(and 3 more\)') as raised:
        workdir.bind(tmp_path, {f'k{i}': -1 for i in range(8)})
    assert 'k5' not in str(raised.value)


def test_a_directory_under_a_file_is_an_input_error(tmp_path):
    (tmp_path / 'file').write_text('')
    for directory in (tmp_path / 'file', tmp_path / 'file' / 'run'):
        with pytest.raises(errors.InputError, match='cannot write to the work directory'):
            workdir.bind(directory, config())


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
@pytest.mark.parametrize('bound', [False, True])
def test_a_directory_without_permission_is_an_input_error(tmp_path, bound):
    if bound:
        workdir.bind(tmp_path, config())
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(errors.InputError, match='cannot write to the work directory'):
            workdir.bind(tmp_path, config())
    finally:
        tmp_path.chmod(0o700)


def test_a_damaged_config_is_an_input_error(tmp_path):
    (tmp_path / 'config.json').write_text('{')
    with pytest.raises(errors.InputError, match=r'config\.json is not a JSON file'):
        workdir.bind(tmp_path, config())

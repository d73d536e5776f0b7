import dataclasses
import json

import numpy as np
import pytest

from rfn_jax.core import digests, errors
from rfn_jax.report import results

TABLES = ('transfer', 'natural', 'transfer_validation', 'natural_validation', 'early_stopping', 'summary', 'gains')


def test_rows_are_typed_and_complete(workdir):
    found = results.read(workdir.path)
    assert found.config['optim']['decay_epochs'] == [20, 40]
    assert found.environment['jax'] == '0.8.1'
    assert len(found.transfer) == 3 * 3 * 4
    first = ('resnet_small', 'sgd', 0, 60, 'bim', 0.015686, 'linf', 'cnn', 'black-box')
    assert dataclasses.astuple(found.transfer[0])[:9] == first
    assert found.summary[2].success_rate == 0.61
    assert found.gains[1].gain == 0.19
    assert [type(value) for value in dataclasses.astuple(found.early_stopping[0])] == [str, str, str, int, float]


def test_figures_that_do_not_exist_are_none(workdir):
    workdir.rewrite('summary.csv', lambda row: row.update(ci_low='', ci_high='nan', white_box_rate=''))
    workdir.rewrite('natural.csv', lambda row: row.update(seed='', epoch=''))
    found = results.read(workdir.path)
    assert (found.summary[0].ci_low, found.summary[0].ci_high, found.summary[0].white_box_rate) == (None, None, None)
    assert (found.natural[0].seed, found.natural[0].epoch) == (None, None)


@pytest.mark.parametrize('name', [*TABLES, 'examples'])
@pytest.mark.parametrize('damage', ['missing', 'empty', 'no column'])
def test_a_bad_file_is_named_in_one_line_with_the_remedy(workdir, name, damage):
    file, column = workdir.file(f'{name}.csv'), 'model' if 'natural' in name else 'surrogate'
    if damage == 'missing':
        file.unlink()
    elif damage == 'empty':
        file.write_text('')
    else:
        workdir.replace(file.name, f'{column},', 'other,')
    with pytest.raises(errors.InputError, match='`rfn-jax run`') as caught:
        results.read(workdir.path)
    message = str(caught.value)
    assert str(file) in message
    assert '\n' not in message
    assert damage != 'no column' or f"'{column}'" in message


@pytest.mark.parametrize('name', TABLES)
def test_a_header_alone_is_an_error_only_where_rows_are_needed(workdir, name):
    file = workdir.file(f'{name}.csv')
    file.write_text(file.read_text().splitlines()[0] + '\n')
    if name in ('transfer', 'natural', 'summary'):
        with pytest.raises(errors.InputError, match='is empty'):
            results.read(workdir.path)
    else:
        assert getattr(results.read(workdir.path), name) == []


@pytest.mark.parametrize(
    ('table', 'change', 'message'),
    [
        ('gains', {'gain': 'many'}, "line 2: gain is 'many', not a number"),
        ('gains', {'gain': 'nan'}, "line 2: gain is 'nan', not a number"),
        ('gains', {'ci_low': 'x'}, "line 2: ci_low is 'x', not a number"),
        ('early_stopping', {'epoch': '2.5'}, r"line 2: epoch is '2\.5', not an integer"),
    ],
)
def test_a_bad_figure_is_named_with_its_line(workdir, table, change, message):
    workdir.rewrite(f'{table}.csv', lambda row: row.update(change))
    with pytest.raises(errors.InputError, match=rf'{table}\.csv, {message}'):
        results.read(workdir.path)


def test_a_short_line_is_an_error(workdir):
    with workdir.file('summary.csv').open('a') as file:
        file.write('resnet_small,rfn\n')
    with pytest.raises(errors.InputError, match=r'summary.csv, line 5: attack is None'):
        results.read(workdir.path)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('config.json', b'[]', r'config\.json.*`rfn-jax run`'),
        ('config.json', b'{', r'config\.json.*`rfn-jax run`'),
        ('environment.json', '{"a": "ä"}'.encode('latin-1'), 'environment'),
    ],
)
def test_a_bad_json_file_is_an_input_error(workdir, name, content, message):
    (workdir.path / name).write_bytes(content)
    with pytest.raises(errors.InputError, match=message):
        results.read(workdir.path)


def test_rates_by_target_are_means_over_seeds_with_the_white_box_last(workdir):
    rows = results.read(workdir.path).transfer
    rates = results.rates_by_target(rows)
    assert list(rates) == [*((name, 'black-box') for name in ('cnn', 'mlp', 'vit')), ('resnet_small', 'white-box')]
    for (target, kind), means in rates.items():
        for training, mean in means.items():
            key = (target, kind, training)
            expected = [row.success_rate for row in rows if (row.target, row.kind, row.training) == key]
            assert len(expected) == 3
            assert mean == pytest.approx(np.mean(expected), abs=1e-12)


def test_groups_keep_attacks_and_budgets_apart(workdir):
    rows = results.read(workdir.path).summary
    changes = {'eps': 0.5, 'norm': 'l2'}, {'attack': 'mi_fgsm'}
    others = [dataclasses.replace(row, **change) for change in changes for row in rows]
    groups = results.groups(rows + others)
    assert [(group.attack, group.eps) for group in groups] == [('bim', 0.015686), ('bim', 0.5), ('mi_fgsm', 0.015686)]
    assert results.in_group(rows + others, groups[1]) == others[:3]


def test_the_example_images_are_those_of_every_training(workdir):
    images = results.read_example_images(workdir.path, results.read(workdir.path).examples)
    assert images.ids.tolist() == [4, 17, 91]
    assert list(images.adversarial) == ['sgd', 'early_stopped', 'rfn']
    assert results.read_example_images(workdir.path, []) is None


@pytest.mark.parametrize(
    'change',
    [
        lambda arrays: arrays.pop('adversarial_rfn'),
        lambda arrays: arrays.update(clean=arrays['clean'].astype(np.float32)),
        lambda arrays: arrays.update(adversarial_rfn=arrays['adversarial_rfn'][:2]),
        lambda arrays: arrays.update(ids=np.array([4, 17, 92])),
        lambda arrays: arrays.update(ids=np.array([4, 17, None], dtype=object)),
    ],
)
def test_images_that_do_not_belong_to_the_rows_are_an_error(workdir, change):
    with np.load(workdir.file('examples.npz')) as arrays:
        arrays = dict(arrays)
    change(arrays)
    np.savez(workdir.file('examples.npz'), **arrays)
    with pytest.raises(errors.InputError, match=r'examples\.npz.*`rfn-jax run`'):
        results.read_example_images(workdir.path, results.read(workdir.path).examples)


@pytest.mark.parametrize('length', [None, 0, 300])
def test_a_damaged_archive_is_an_input_error(workdir, length):
    file = workdir.file('examples.npz')
    content = file.read_bytes()
    file.unlink()
    if length is not None:
        file.write_bytes(content[:length])
    with pytest.raises(errors.InputError, match=r'examples\.npz'):
        results.read_example_images(workdir.path, results.read(workdir.path).examples)


def test_a_summary_of_what_was_not_measured_is_an_error(workdir):
    workdir.replace('summary.csv', ',bim,', ',mi_fgsm,')
    with pytest.raises(errors.InputError, match=r'do not belong together.*`rfn-jax run`'):
        results.read(workdir.path)


@pytest.fixture
def recorded(workdir):
    """The work directory, with the record of which config and tables belong together."""
    names = [*(f'{name}.csv' for name in TABLES), 'examples.csv', 'examples.npz']
    tables = {name: digests.of_file(workdir.file(name)) for name in names}
    config = json.loads((workdir.path / 'config.json').read_text())
    workdir.record = {'config': digests.of_plain(config), 'tables': tables}
    workdir.file('measured.json').write_text(json.dumps(workdir.record))
    assert results.read(workdir.path).config == config
    return workdir


def test_results_of_another_config_are_not_shown(recorded):
    config = json.loads((recorded.path / 'config.json').read_text())
    (recorded.path / 'config.json').write_text(json.dumps({**config, 'seed': 1}))
    with pytest.raises(errors.InputError, match=r'was measured with a config other than the one in .*`rfn-jax run`'):
        results.read(recorded.path)


@pytest.mark.parametrize('name', TABLES)
def test_a_table_that_changed_since_the_measurement_is_an_error(recorded, name):
    lines = recorded.file(f'{name}.csv').read_text().splitlines()
    recorded.file(f'{name}.csv').write_text('\n'.join([*lines, lines[-1]]) + '\n')
    with pytest.raises(errors.InputError, match=rf'{name}\.csv has changed since .*`rfn-jax run`'):
        results.read(recorded.path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda record: '{', '`rfn-jax run`'),
        (lambda record: '[]', '`rfn-jax run`'),
        (lambda record: '{}', '`rfn-jax run`'),
        (lambda record: json.dumps({**record, 'tables': []}), r'results was not measured to the end'),
    ],
)
def test_a_damaged_record_is_an_error(recorded, change, message):
    recorded.file('measured.json').write_text(change(recorded.record))
    with pytest.raises(errors.InputError, match=message):
        results.read(recorded.path)

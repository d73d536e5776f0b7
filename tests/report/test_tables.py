import io

import rich.console

from rfn_jax.core import console as console_lib
from rfn_jax.report import tables


def _printed(workdir):
    content = io.StringIO()
    console = rich.console.Console(file=content, width=80, highlight=False, soft_wrap=True)
    tables.print_tables(workdir.path, console_lib.Console(console))
    return content.getvalue()


def _cells(text, name):
    return [line.split() for line in text.splitlines() if line.startswith(name)]


def test_figures_are_those_of_the_files(workdir):
    text = _printed(workdir)
    for row in workdir.rows('summary.csv'):
        rates = [row['success_rate'], row['ci_low'], row['ci_high'], row['white_box_rate'], row['natural_accuracy']]
        rates = [f'{100 * float(rate):.1f}' for rate in rates]
        counts = [row['seeds'], row['targets'], row['n']]
        assert [row['training'], *rates[:2], 'to', *rates[2:], *counts] in _cells(text, row['training'])
    for row in workdir.rows('gains.csv'):
        gain, low, high = (f'{100 * float(row[name]):+.1f}' for name in ('gain', 'ci_low', 'ci_high'))
        assert ['rfn', row['baseline'], gain, low, 'to', high, 'yes'] in _cells(text, 'rfn')
    assert ['vit', '35.0', '47.0', '66.0'] in _cells(text, 'vit')
    assert ['resnet_small', '(white-box)', '97.0', '97.0', '97.0'] in _cells(text, 'resnet_small')


def test_every_group_has_its_tables_without_control_codes_and_in_at_most_eighty_columns(workdir):
    workdir.add_attack('mi_fgsm')
    text = _printed(workdir)
    assert '\x1b' not in text
    assert max(map(len, text.splitlines())) <= 80
    assert len(_cells(text, 'sgd')) == 2
    assert 'attacked with bim,' in text
    assert 'attacked with mi_fgsm,' in text


def test_names_are_printed_literally(workdir):
    for name in ('summary.csv', 'gains.csv', 'transfer.csv'):
        workdir.replace(name, ',rfn,', ',[red]rfn,')
    text = _printed(workdir)
    assert len(_cells(text, '[red]rfn')) >= 2


def test_no_gains_leave_no_table(workdir):
    workdir.file('gains.csv').write_text(workdir.file('gains.csv').read_text().splitlines()[0] + '\n')
    text = _printed(workdir)
    assert 'Gain' not in text
    assert 'No training was compared with a baseline.' in text

import html.parser
import json
import re

import numpy as np
import pytest

from rfn_jax import landscape
from rfn_jax.core import errors, tables
from rfn_jax.report import page

VOID = {'meta', 'img', 'br', 'link', 'hr', 'input'}


class Reader(html.parser.HTMLParser):
    """Checks that tags are balanced, and keeps the tags, the tables and the text."""

    def __init__(self, content):
        super().__init__()
        self.open, self.tags, self.text, self.tables, self.ids = [], [], [], [], []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == 'table':
            self.tables.append([])
        elif tag == 'tr':
            self.tables[-1].append([])
        elif tag in ('td', 'th'):
            self.tables[-1][-1].append('')

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == 'id']

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if 'style' not in self.open:
            self.text.append(data)
        if {'td', 'th'} & set(self.open):
            self.tables[-1][-1][-1] += data


def _read(workdir):
    return Reader(page.write_page(workdir.path).read_text(encoding='utf-8'))


def _text(reader):
    return re.sub(r'\s+', ' ', ' '.join(reader.text))


def _percent(row, *names):
    return [f'{100 * float(row[name]):.1f}' for name in names]


def test_it_is_written_where_it_was_promised_and_says_what_it_holds(workdir):
    assert page.write_page(workdir.path) == workdir.path / 'report' / 'index.html'
    text = _text(_read(workdir))
    for words in (
        'resnet_small attacked with bim, L-infinity, eps 4/255',
        'rfn has the largest mean black-box success rate, 61.0 %, and is above every baseline in every setting: by +19.0 ',
        'Compared: 3 trainings, 1 surrogate architecture, 1 attack, 3 black-box targets, 3 seeds and 200 test images.',
        'rfn reaches a mean black-box success rate of 61.0 % and is above both baselines: +31.0 points against sgd',
        'Measured on validation images and validation targets',
        'it stops sgd at epoch 22, with a mean success of 38.5 % on the validation targets',
        'are shown 3 times as large',
        'rfn-jax run --workdir=WORKDIR',
    ):
        assert words in text


def test_figures_equal_those_of_the_files(workdir):
    ranking, headline, gains, targets, *examples, natural, environment = _read(workdir).tables
    assert [row[:2] for row in ranking[1:]] == [['rfn', '61.0'], ['early_stopped', '42.0'], ['sgd', '30.0']]
    for shown, row in zip(headline[1:], workdir.rows('summary.csv'), strict=True):
        names = ('success_rate', 'ci_low', 'ci_high', 'white_box_rate', 'natural_accuracy')
        rate, low, high, *others = _percent(row, *names)
        counts = [row[name] for name in ('seeds', 'targets', 'n', 'gradient_evaluations')]
        assert shown == [row['training'], rate, f'{low} to {high}', *others, *counts]
    for shown, row in zip(gains[1:], workdir.rows('gains.csv'), strict=True):
        gain, low, high = (f'{100 * float(row[name]):+.1f}' for name in ('gain', 'ci_low', 'ci_high'))
        assert shown == [row['training'], row['baseline'], gain, f'{low} to {high}', 'yes']
    assert targets[1:] == [
        ['cnn', '25.0', '37.0', '56.0'],
        ['mlp', '30.0', '42.0', '61.0'],
        ['vit', '35.0', '47.0', '66.0'],
        ['resnet_small (white-box)', '97.0', '97.0', '97.0'],
    ]
    for shown, row in zip(natural[1:], workdir.rows('natural.csv'), strict=True):
        role = row['role'].replace('_', ' ')
        assert shown == [
            row['model'], *_percent(row, 'accuracy'), role, row['training'], row['seed'], row['epoch'], row['n']
        ]  # fmt: skip
    assert ['jax', '0.8.1'] in environment
    assert len(examples) == 3


def test_predictions_are_written_out_and_the_wrong_ones_marked(workdir):
    first = _read(workdir).tables[4]
    assert first[0] == ['target', 'clean', 'sgd', 'early_stopped', 'rfn']
    assert first[1:] == [
        ['cnn', 'zero', 'zero', 'zero', '✗ one'],
        ['mlp', 'zero', 'zero', '✗ one', '✗ one'],
        ['vit', 'zero', '✗ one', '✗ one', '✗ one'],
        ['resnet_small (white-box)', 'zero', '✗ one', '✗ one', '✗ one'],
    ]


def test_it_is_one_file_that_loads_nothing_and_has_words_for_what_not_everyone_sees(workdir):
    content = page.write_page(workdir.path).read_text()
    reader = Reader(content)
    for tag, attributes in reader.tags:
        assert tag not in ('script', 'link', 'iframe', 'object', 'embed', 'base')
        for name in ('src', 'href', 'xlink:href', 'srcset', 'data', 'action'):
            assert attributes.get(name, '#').startswith(('#', 'data:image/png;base64,'))
    assert not re.search(r'@import|url\((?!#)', content)
    assert len(reader.ids) == len(set(reader.ids))  # so that the references of plots stay whole
    assert sum(tag == 'svg' for tag, _ in reader.tags) == 2
    images = [attributes['alt'] for tag, attributes in reader.tags if tag == 'img']
    plots = [attributes['aria-label'] for _, attributes in reader.tags if attributes.get('role') == 'img']
    assert (len(images), len(plots)) == (3 * (1 + 3 * 2), 2)
    assert all(images + plots)
    assert page.write_page(workdir.path).read_text() == content


@pytest.mark.parametrize('name', ['summary.csv', 'gains.csv', 'transfer.csv', 'natural.csv', 'examples.npz'])
def test_missing_results_are_an_input_error_and_leave_no_page(workdir, name):
    workdir.file(name).unlink()
    with pytest.raises(errors.InputError, match=rf'{name}.*`rfn-jax run`'):
        page.write_page(workdir.path)
    assert not (workdir.path / 'report').exists()


def test_hostile_names_are_text_everywhere(workdir):
    hostile = '<script>alert(1)</script>" onload="x'

    def change(row):
        row.update({key: re.sub('rfn|cnn|bim|resnet_small', hostile, value) for key, value in row.items()})

    for file in workdir.path.glob('results/*.csv'):
        workdir.rewrite(file.name, change)
    with np.load(workdir.file('examples.npz')) as arrays:
        np.savez(workdir.file('examples.npz'), **{k: v for k, v in arrays.items() if k != 'adversarial_rfn'})
    workdir.rewrite('examples.csv', lambda row: row.update(training=row['training'].replace(hostile, 'sgd')))
    workdir.rewrite('examples.csv', lambda row: row.update(label=hostile, adversarial_prediction=hostile))
    for name in ('config.json', 'environment.json'):
        file = workdir.path / name
        file.write_text(file.read_text().replace('digits', '<script>').replace('1 cpu', '<script>'))
    reader = _read(workdir)
    assert 'script' not in {tag for tag, _ in reader.tags}
    assert hostile in ''.join(reader.text)
    assert not any(name.startswith('on') for _, attributes in reader.tags for name in attributes)


@pytest.mark.parametrize(
    ('shape', 'largest', 'pixelated'), [((8, 8, 1), 51, True), ((32, 32, 3), 4, True), ((224, 224, 3), 4, False)]
)
def test_images_of_all_sizes(workdir, shape, largest, pixelated):
    workdir.write_examples(shape, largest)
    content = page.write_page(workdir.path).read_text()
    assert ('class="cards pixelated"' in content) == pixelated
    assert f'shown {127 // largest} times' in content


def test_several_attacks_share_a_ranking_and_have_a_section_each(workdir):
    workdir.add_attack('mi_fgsm')
    workdir.replace('summary.csv', 'rfn,mi_fgsm,0.015686,linf,0.61', 'rfn,mi_fgsm,0.015686,linf,0.25')
    reader = _read(workdir)
    text = _text(reader)
    assert reader.tables[0][0][2:4] == ['bim, L-infinity, eps 4/255', 'mi_fgsm, L-infinity, eps 4/255']
    first, second = reader.tables[0][1:3]
    assert first == ['rfn', '43.0', '61.0', '25.0', '96.2']
    assert second == ['early_stopped', '42.0', '42.0', '42.0', '95.7']
    assert text.count('and is above both baselines') == 2
    assert text.count('Measured on validation images') == 1  # the figures by epoch are those of the validation attack
    assert len(reader.ids) == len(set(reader.ids))
    links = [attributes['href'] for tag, attributes in reader.tags if tag == 'a']
    assert links == [f'#{name}' for name in ('setting1', 'setting2', 'dynamics1', 'examples', 'natural', 'reproduce')]
    assert {link[1:] for link in links} <= set(reader.ids)


def test_a_lead_that_is_not_sure_is_not_called_one(workdir):
    workdir.rewrite('gains.csv', lambda row: row.update(ci_low='-0.010000') if row['baseline'] == 'sgd' else None)
    assert '61.0 %; 1 of 2 gains over baselines have an interval above zero' in _text(_read(workdir))


def test_the_landscape_is_a_table(workdir):
    row = landscape.LandscapeRow(
        surrogate='resnet_small', training='rfn', seed=0, epoch=60, loss=0.01, top_eigenvalue=12.3, top_eigenvalue_error=0.1,
        trace=456.0, trace_standard_error=7.8, rho=0.05, worst_case_sharpness=0.02, average_sharpness=0.001,
        average_sharpness_standard_error=0.0001, gradient_cosine=0.21, n=500,
    )  # fmt: skip
    config = json.loads((workdir.path / 'config.json').read_text())
    known = {'landscape': {}, 'surrogates': {'resnet_small': {}}, 'trainings': {'rfn': {}}}
    (workdir.path / 'config.json').write_text(json.dumps(config | known))
    workdir.file('landscape.csv').write_bytes(tables.content(landscape.LandscapeRow, [row]))
    reader = _read(workdir)
    assert 'on 500 training images' in _text(reader)
    (shown,) = [table[1] for table in reader.tables if 'largesteigenvalue' in table[0]]
    assert shown == ['rfn resnet_small', '0', '60', '0.01', '12.3', '456 ± 7.8', '0.02', '0.001', '0.210']


def test_an_experiment_without_baselines_validation_or_examples(workdir):
    for name in ('gains', 'transfer_validation', 'natural_validation', 'early_stopping', 'examples'):
        file = workdir.file(f'{name}.csv')
        file.write_text(file.read_text().splitlines()[0] + '\n')
    workdir.file('examples.npz').unlink()
    text = _text(_read(workdir))
    assert 'No training was compared with a baseline.' in text
    assert 'by epoch' not in text
    assert 'Examples' not in text


def test_a_gain_that_may_be_zero_is_said_to_be_so(workdir):
    workdir.rewrite('gains.csv', lambda row: row.update(ci_low='-0.010000'))
    reader = _read(workdir)
    assert 'the intervals against sgd and early_stopped include zero' in _text(reader)
    assert [row[-1] for row in reader.tables[2][1:]] == ['no', 'no']

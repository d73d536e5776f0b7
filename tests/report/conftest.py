"""A small work directory with made-up figures that agree with each other."""

import csv
import json
import math

import numpy as np
import pytest

RATES = {'sgd': 0.30, 'early_stopped': 0.42, 'rfn': 0.61}
TARGETS = ('cnn', 'mlp', 'vit')
SETTING = {'surrogate': 'resnet_small', 'attack': 'bim', 'eps': '0.015686', 'norm': 'linf'}
DIGITS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


class WorkDirectory:
    """A work directory whose files tests read, change and remove."""

    def __init__(self, path):
        self.path = path
        (path / 'results').mkdir(parents=True)

    def write(self, name, columns, rows):
        with self.file(name).open('w', newline='') as file:
            writer = csv.writer(file, lineterminator='\n')
            writer.writerow(columns.split(','))
            writer.writerows([f'{cell:.6f}' if isinstance(cell, float) else cell for cell in row] for row in rows)

    def file(self, name):
        return self.path / 'results' / name

    def rows(self, name):
        with self.file(name).open(newline='') as file:
            return list(csv.DictReader(file))

    def rewrite(self, name, change):
        """Applies `change` to each row (a dictionary), which it may alter in place."""
        rows = self.rows(name)
        for row in rows:
            change(row)
        self.write(name, ','.join(rows[0]), (row.values() for row in rows))

    def add_attack(self, attack):
        """Adds the rows of another attack, with the same figures."""
        for name in ('summary.csv', 'gains.csv', 'transfer.csv'):
            lines = self.file(name).read_text().splitlines()
            lines += [line.replace(',bim,', f',{attack},') for line in lines[1:]]
            self.file(name).write_text('\n'.join(lines) + '\n')

    def replace(self, name, old, new):
        text = self.file(name).read_text()
        assert old in text
        self.file(name).write_text(text.replace(old, new))

    def write_examples(self, shape, largest):
        generator = np.random.default_rng(0)
        clean = generator.integers(60, 190, (3, *shape), dtype=np.uint8)
        arrays = {'ids': np.array([4, 17, 91]), 'clean': clean}
        columns = 'surrogate,training,seed,epoch,attack,eps,norm,target,kind,id,label,clean_prediction'
        columns += ',adversarial_prediction'
        surrogate, attack, eps, norm = SETTING.values()
        rows = []
        for order, training in enumerate(RATES):
            noise = largest * generator.choice([-1, 1], clean.shape)
            arrays[f'adversarial_{training}'] = (clean + noise).astype(np.uint8)
            for place, identity in enumerate((4, 17, 91)):
                label = DIGITS[place]
                for number, target in enumerate((*TARGETS, surrogate)):
                    after = DIGITS[place + 1] if number >= 2 - order else label
                    kind = 'white-box' if target == surrogate else 'black-box'
                    setting = (surrogate, training, 0, 60, attack, eps, norm)
                    rows.append((*setting, target, kind, identity, label, label, after))
        self.write('examples.csv', columns, rows)
        np.savez(self.file('examples.npz'), **arrays)


def _interval(rate, n):
    half = 1.96 * math.sqrt(rate * (1 - rate) / n) + 0.01
    return max(0.0, rate - half), min(1.0, rate + half)


def _transfer(epochs, trainings, targets, n, course=None):
    surrogate, attack, eps, norm = SETTING.values()
    for training in trainings:
        for seed in range(3):
            for epoch in epochs(training):
                for place, target in enumerate(targets):
                    rate = RATES[training] + 0.05 * (place - 1) + 0.02 * (seed - 1)
                    rate *= course[training](epoch) if course else 1
                    setting = (surrogate, training, seed, epoch, attack, eps, norm)
                    yield *setting, target, 'black-box', rate, *_interval(rate, n), n, 50
                yield *setting, surrogate, 'white-box', 0.97, *_interval(0.97, n), n, 50


@pytest.fixture
def workdir(tmp_path):
    made = WorkDirectory(tmp_path / 'work')
    surrogate, attack, eps, norm = SETTING.values()
    optim = {'epochs': 60, 'decay_epochs': [20, 40], 'rho': 0.4}
    config = {'name': 'digits', 'seed': 0, 'surrogate': {'seeds': 3, 'model': 'resnet_small'}, 'optim': optim}
    (made.path / 'config.json').write_text(json.dumps(config))
    environment = {'python': '3.12', 'jax': '0.8.1', 'rfn_jax': '0.1.0', 'devices': '1 cpu', 'platform': 'linux'}
    (made.path / 'environment.json').write_text(json.dumps(environment))
    columns = (
        'surrogate,training,seed,epoch,attack,eps,norm,target,kind,success_rate,ci_low,ci_high,n,gradient_evaluations'
    )
    last = _transfer(lambda training: [22 if training == 'early_stopped' else 60], RATES, TARGETS, 200)
    made.write('transfer.csv', columns, last)
    course = {
        'sgd': lambda epoch: 0.9 + 0.5 * math.exp(-(((epoch - 22) / 8) ** 2)),
        'rfn': lambda epoch: 1 - math.exp(-epoch / 12),
    }
    validation = _transfer(lambda training: range(2, 61, 2), course, ('mlp_wide', 'cnn_wide'), 100, course)
    made.write('transfer_validation.csv', columns, validation)

    columns = 'model,role,training,seed,epoch,accuracy,top5_accuracy,n'
    rows = [
        (
            surrogate,
            'surrogate',
            training,
            seed,
            22 if training == 'early_stopped' else 60,
            accuracy + seed / 500,
            1.0,
            360,
        )
        for training, accuracy in {'sgd': 0.97, 'early_stopped': 0.955, 'rfn': 0.96}.items()
        for seed in range(3)
    ]
    rows += [(name, 'target', 'sgd', 0, 60, 0.96 + place / 200, 1.0, 360) for place, name in enumerate(TARGETS)]
    rows += [(name, 'validation_target', 'sgd', 0, 60, 0.95, 1.0, 360) for name in ('mlp_wide', 'cnn_wide')]
    made.write('natural.csv', columns, rows)
    rows = [
        (surrogate, 'surrogate', training, seed, epoch, 0.97 - math.exp(-epoch / 9) * 0.6 - seed / 200, 1.0, 180)
        for training in ('sgd', 'rfn')
        for seed in range(3)
        for epoch in range(2, 61, 2)
    ]
    made.write('natural_validation.csv', columns, rows)
    columns = 'surrogate,training,stops,epoch,success_rate'
    made.write('early_stopping.csv', columns, [(surrogate, 'early_stopped', 'sgd', 22, 1.4 * 0.275)])

    columns = 'surrogate,training,attack,eps,norm,success_rate,ci_low,ci_high,white_box_rate,natural_accuracy,seeds'
    columns += ',targets,n,gradient_evaluations'
    natural = {'sgd': 0.972, 'early_stopped': 0.957, 'rfn': 0.962}
    rows = [
        (surrogate, name, attack, eps, norm, rate, *_interval(rate, 200), 0.97, natural[name], 3, 3, 200, 50)
        for name, rate in RATES.items()
    ]
    made.write('summary.csv', columns, rows)
    columns = 'surrogate,training,baseline,attack,eps,norm,gain,ci_low,ci_high'
    rows = [
        (surrogate, 'rfn', name, attack, eps, norm, gain, gain - 0.04, gain + 0.03)
        for name, gain in {'sgd': 0.31, 'early_stopped': 0.19}.items()
    ]
    made.write('gains.csv', columns, rows)
    made.write_examples(shape=(8, 8, 1), largest=40)
    return made

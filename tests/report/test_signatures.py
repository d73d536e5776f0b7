import dataclasses

import pytest

from rfn_jax import transfer as transfer_lib
from rfn_jax.report import page, results, signatures, tables, words

NETWORK = {'network': 'weights/x'}


def lines(*losses, accuracy=0.99, skipped=0):
    return [
        {'epoch': e, 'loss': loss, 'accuracy': accuracy, 'skipped_count': skipped} for e, loss in enumerate(losses, 1)
    ]


@pytest.fixture
def run(workdir):
    """Results without any of the signs: targets from elsewhere, and surrogates that fit their images."""
    metrics = {('resnet_small', training, seed): lines(1.0, 0.1) for training in ('sgd', 'rfn') for seed in range(3)}
    found = results.read(workdir.path)
    trainings = {
        'sgd': {'name': 'sgd'},
        'rfn': {'name': 'rfn_sam', 'rho': 0.4},
        'rfn_half': {'name': 'rfn_sam', 'rho': 0.2},
    }
    config = found.config | {'targets': dict.fromkeys(('cnn', 'mlp', 'vit'), NETWORK), 'trainings': trainings}
    config['surrogates'] = {'resnet_small': {'name': 'resnet'}}
    return found._replace(config=config, metrics=metrics, num_classes=10)


def with_metrics(training, **options):
    def change(run):
        return run._replace(metrics=run.metrics | {('resnet_small', training, 0): lines(1.0, 0.1, **options)})

    return change


def with_rates(**rates):
    def change(run):
        first = run.summary[0]
        return run._replace(
            summary=[dataclasses.replace(first, training=name, success_rate=rate) for name, rate in rates.items()]
        )

    return change


def replaced(name, **values):
    def change(run):
        return run._replace(**{name: [dataclasses.replace(row, **values) for row in getattr(run, name)]})

    return change


def with_accuracies(**accuracies):
    def change(run):
        rows = [dataclasses.replace(r, natural_accuracy=accuracies.get(r.training, 0.9)) for r in run.summary]
        return run._replace(summary=rows)

    return change


def stopped_at(epoch):
    row = transfer_lib.EarlyStoppingRow('resnet_small', 'early_stopped', 'sgd', epoch, 0.4)
    return lambda run: run._replace(early_stopping=[row])


@pytest.mark.parametrize(
    ('name', 'present', 'absent', 'words_of_it'),
    [
        ('weak target', replaced('natural', accuracy=0.19), replaced('natural', accuracy=0.21), 'chance is 10.0%'),
        ('few images', replaced('summary', n=99), replaced('summary', n=100), 'measured on 99 images'),
        ('underfitting', with_metrics('rfn', accuracy=0.7), with_metrics('rfn', accuracy=0.9), 'of 89.3% and sgd one of 9'),
        ('natural accuracy', with_accuracies(rfn=0.86), with_accuracies(rfn=0.88, early_stopped=0.5), 'rfn has a natural'),
        ('success falls with rho', with_rates(rfn_half=0.5, rfn=0.4), with_rates(rfn_half=0.5, rfn=0.5), 'at rho 0.2 to'),
        ('skipped steps', with_metrics('rfn', skipped=3), with_metrics('rfn'), '3 steps of resnet_small-rfn seed 0'),
        ('no early stopping', stopped_at(60), stopped_at(58), 'stops sgd at the last epoch, 60'),
        (
            'rising loss',
            lambda run: run._replace(metrics={('a', 'rfn', 1): lines(1.0, 0.2, 0.4)}),
            lambda run: run._replace(metrics={('a', 'rfn', 1): lines(1.0, 0.2, 0.25)}),
            'of a-rfn seed 1 fell to 0.2 and ended at 0.4',
        ),
        (
            'shared training images',
            lambda run: run._replace(config=run.config | {'targets': {'a': NETWORK, 'b': {'model': {}}}}),
            lambda run: run._replace(config=run.config | {'targets': {'b': {}}, 'surrogates': {'a': {'as_is': True}}}),
            '1 of 2 targets were trained here',
        ),
    ],
)  # fmt: skip
def test_each_sign_is_found_where_it_is_and_only_there(run, name, present, absent, words_of_it):
    assert signatures.signatures(run) == []
    (found,) = {signature.name: signature for signature in signatures.signatures(present(run))}.values()
    assert found.name == name
    assert words_of_it in found.finding
    assert name not in [signature.name for signature in signatures.signatures(absent(run))]


def test_signs_are_printed_and_on_the_page(workdir, capsys):
    from rfn_jax.core import console

    workdir.rewrite('summary.csv', lambda row: row.update(n=12))
    tables.print_tables(workdir.path, console.Console())
    warning = words.warning(signatures.signatures(results.read(workdir.path))[0])
    assert warning.startswith('few images: success is measured on 12 images')
    assert 'Read these figures with care' in (printed := ' '.join(capsys.readouterr().out.split()))
    assert warning in printed
    assert 'success is measured on 12 images' in page.write_page(workdir.path).read_text()

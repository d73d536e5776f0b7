import io

import jax
import pytest
import rich.console

from rfn_jax import bench
from rfn_jax.core import console, errors, sharding

OPTIONS = {
    'models': {'cifar_resnet20': 4, 'cifar_vgg11': 2},
    'precisions': ['float32'],
    'minimizers': ['sgd', 'rfn_sam'],
    'attacks': ['bim-50'],
    'rounds': 3,
    'seconds': 0.01,
}


def program(**changes):
    values = {'steps': 2, 'batch_size': 4, 'model_flops': 6e12, 'compile_s': 1.5, 'memory_bytes': 7}
    return bench.Program(start=lambda: None, wait=lambda: None, **values | changes)


@pytest.fixture
def made(monkeypatch):
    """Replaces programs by ones that do nothing; lists what they were made for."""
    calls = []

    def training(model, minimizer, **options):
        calls.append((model, minimizer['name'], options['precision']))
        return program()

    def attack(model, attack, **options):
        calls.append((model, attack['name'], options['precision']))
        if model == 'cifar_vgg11':
            raise errors.RunError('not enough device memory')
        return program(steps=1)

    monkeypatch.setattr('rfn_jax.bench.programs.training_program', training)
    monkeypatch.setattr('rfn_jax.bench.programs.attack_program', attack)
    return calls


def run(save=lambda rows: None, **changes):
    output = io.StringIO()
    mesh = sharding.data_mesh(jax.devices()[:1])
    shown = console.Console(rich.console.Console(file=output, width=200))
    return bench.run(bench.Suite(**OPTIONS | changes), mesh, shown, save), output.getvalue()


def test_every_group_is_timed_and_saved_as_it_ends(made):
    saved = []
    rows, _ = run(lambda rows: saved.append(len(rows)))
    assert saved == [2, 3, 5, 6]
    names = ('sgd', 'rfn_sam', 'bim')
    assert made == [(model, name, 'float32') for model in ('cifar_resnet20', 'cifar_vgg11') for name in names]
    found = [(row.work, len(row.seconds), row.error) for row in rows[3:]]
    assert found == [('sgd', 3, ''), ('rfn_sam', 3, ''), ('bim-50', 0, 'not enough device memory')]
    assert [row.model for row in rows] == ['cifar_resnet20'] * 3 + ['cifar_vgg11'] * 3
    assert rows[0].model_tflops == 3.0  # for one of its two steps
    assert rows[0].utilization is None  # on a CPU


def test_utilization_is_relative_to_the_peak_of_all_devices(made, monkeypatch):
    monkeypatch.setattr('rfn_jax.bench.hardware.peak_flops', lambda kind, precision: 1e12)
    monkeypatch.setattr('rfn_jax.bench.rounds.time_interleaved', lambda programs, **options: [[12.0]] * len(programs))
    rows, _ = run()
    assert rows[0].median == 6.0
    assert rows[0].utilization == pytest.approx(3e12 / 6.0 / 1e12)


def test_running_out_of_memory_in_a_round_is_an_error_of_the_rows(made, monkeypatch):
    def interleaved(programs, **options):
        if programs:
            raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: no room')
        return []

    monkeypatch.setattr('rfn_jax.bench.rounds.time_interleaved', interleaved)
    rows, _ = run()
    message = 'not enough device memory'
    assert {row.error for row in rows} == {message, f'{message}; use a smaller batch size'}


def test_no_group_is_started_after_the_limit(made, monkeypatch):
    clock = iter([0.0, 1.0, 8.0, 9.0, 10.0])
    monkeypatch.setattr('rfn_jax.bench.suite.time.monotonic', lambda: next(clock))
    rows, printed = run(limit_s=7.0)
    left_out = [('cifar_resnet20', 'bim-50'), *(('cifar_vgg11', work) for work in ('sgd', 'rfn_sam', 'bim-50'))]
    assert [(row.model, row.work) for row in rows if not row.seconds] == left_out
    assert {row.error for row in rows if not row.seconds} == {'not started within 7 s'}
    assert [row.work for row in rows if row.seconds] == ['sgd', 'rfn_sam']
    assert 'cifar_vgg11' not in printed


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'models': {'resnet_50': 1}}, "unknown model for a benchmark 'resnet_50'; did you mean 'resnet50'"),
        ({'models': {'resnet50': 0}}, 'the batch size of resnet50 must be an integer from 1 to 1048576, got 0'),
        ({'precisions': ['float16']}, "unknown precision 'float16'; did you mean 'bfloat16'"),
        ({'minimizers': ['adam']}, "unknown minimizer for a benchmark 'adam'"),
        ({'attacks': ['bim']}, "unknown attack for a benchmark 'bim'; did you mean 'bim-50'"),
        ({'models': {}}, 'there is nothing to time'),
        ({'minimizers': [], 'attacks': []}, 'there is nothing to time'),
        ({'rounds': 0}, 'rounds must be an integer from 1 to 1048576, got 0'),
        ({'seconds': float('nan')}, 'seconds must be a finite number above 0, got nan'),
        ({'steps_per_call': 10**22}, 'steps_per_call must be an integer from 1 to 1048576, got 1'),
        ({'limit_s': -1.0}, r'limit must be a finite number above 0, got -1\.0'),
        ({'precisions': ['tf32', 'tf32']}, 'precisions must not repeat, got tf32, tf32'),
    ],
)  # fmt: skip
def test_wrong_options(changes, message):
    with pytest.raises(errors.InputError, match=message):
        bench.Suite(**OPTIONS | changes)


def test_a_batch_must_divide_evenly_over_the_devices():
    message = 'the batch size 4 of cifar_resnet20 does not divide evenly over 8 devices'
    with pytest.raises(errors.InputError, match=message):
        bench.run(bench.Suite(**OPTIONS), sharding.data_mesh(), console.Console(), lambda rows: None)

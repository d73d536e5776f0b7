import functools

import jax
import numpy as np
import pytest

from rfn_jax import bench, models
from rfn_jax.bench import programs
from rfn_jax.core import errors, sharding
from rfn_jax.models import sizes

B = 4


@pytest.fixture(scope='module', autouse=True)
def thin():
    """A model that is fully specified by its name and compiles quickly."""
    options = {'name': 'resnet', 'stage_sizes': (1,), 'widths': (4,), 'stem_strides': 2}
    models.MODELS.add('cifar_thin', lambda num_classes, dtype=np.float32: models.MODELS.make(
        **options, num_classes=num_classes, dtype=dtype
    ))  # fmt: skip
    sizes.table()['cifar_thin'] = sizes.Size('cifar_thin', 32, 10, 0, 0.0, '')
    yield
    del sizes.table()['cifar_thin'], models.MODELS._factories['cifar_thin']


@functools.cache
def training(name, steps_per_call=1, precision='float32', model='cifar_thin'):
    options = {'precision': precision, 'steps_per_call': steps_per_call, 'mesh': sharding.data_mesh(jax.devices()[:1])}
    return bench.training_program(model, bench.MINIMIZERS[name], batch_size=B, **options)


def attack(precision, **attack):
    mesh = sharding.data_mesh(jax.devices()[:1])
    return bench.attack_program('cifar_thin', attack, batch_size=B, precision=precision, mesh=mesh)


@pytest.mark.slow
def test_the_operations_of_a_step_are_those_of_its_gradients():
    # 3 x 3 convolutions of a 16 x 16 image: from 3 to 4 channels, twice from 4 to 4; a dense layer.
    forward = 2 * (16 * 16 * 9 * (3 * 4 + 4 * 4 + 4 * 4) + 4 * 10)
    assert training('sgd').model_flops == 3 * forward * B
    assert training('rfn_sam', steps_per_call=2).model_flops == 2 * 2 * 3 * forward * B
    looksam = training('looksam', steps_per_call=2)
    assert looksam.model_flops == pytest.approx(2 * 1.2 * 3 * forward * B)
    assert looksam.period == 5  # calls of two steps, until an ascent comes at the same position


def test_a_program_continues_from_its_last_state_and_needs_memory():
    program = training('rfn_sam', steps_per_call=2)
    for _ in range(2):
        program.start()
    program.wait()
    assert (program.steps, program.batch_size) == (2, B)
    assert program.memory_bytes > 4 * B * 32 * 32 * 3  # for the images alone
    assert program.compile_s > 0


def test_an_attack_needs_no_gradient_of_the_weights():
    program = attack('bfloat16', name='bim', eps=4 / 255, steps=2)
    program.start()
    program.wait()
    assert program.model_flops == training('sgd').model_flops / 3 * 2 * 2


def test_what_cannot_be_timed():
    with pytest.raises(errors.InputError, match="unknown model for a benchmark 'cifar_thinn'; did you mean"):
        training('sgd', model='cifar_thinn')
    with pytest.raises(errors.InputError, match="unknown precision 'fp8'"):
        training('sgd', precision='fp8')
    with pytest.raises(errors.InputError, match='needs a pool of images'):
        attack('float32', name='admix')


def test_running_out_of_memory_when_compiling_is_one_clear_line(monkeypatch):
    class Greedy:
        def lower(self, *arguments):
            raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: out of memory')

    with pytest.raises(errors.RunError, match='not enough device memory'):
        programs._compile(Greedy())


def test_peaks_by_the_names_of_devices():
    assert bench.peak_flops('NVIDIA H100 80GB HBM3', 'bfloat16') == 989.4e12
    assert bench.peak_flops('NVIDIA H100 PCIe', 'bfloat16') == 756e12
    assert bench.peak_flops('NVIDIA A100-SXM4-40GB', 'tf32') == 156e12
    assert bench.peak_flops('TPU v5 lite', 'bfloat16') == 197e12
    assert bench.peak_flops('TPU v4', 'float32') is bench.peak_flops('cpu', 'float32') is None

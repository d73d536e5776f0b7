"""Several steps in one call: the same bits, one compilation, no transfers between device and host, and a reused state."""

import json
import re

import jax
import numpy as np
import optax
import pytest

from rfn_jax import data, optim, training
from rfn_jax.core import digests, rng, sharding
from rfn_jax.core.errors import InputError

DESCENT = optim.momentum_sgd(0.05, momentum=0.9, weight_decay=5e-4)


def digest(state):
    return digests.of_arrays(jax.tree.map(np.asarray, state))


@pytest.mark.slow
@pytest.mark.parametrize('minimizer', [{'name': 'sgd'}, {'name': 'rfn_sam', 'rho': 0.2}, {'name': 'looksam', 'k': 2}])
def test_an_epoch_by_scan_equals_the_loop_bit_for_bit(conv_bench, tmp_path, minimizer):
    options = {'minimizer': minimizer, 'epochs': 2}
    for name, steps_per_call in (('loop', 1), ('scan', 4), ('parts', 3)):  # an epoch has 4 steps
        conv_bench.fit(tmp_path / name, steps_per_call=steps_per_call, devices=jax.devices()[:1], **options)
    recipe = training.Recipe(**{**conv_bench.options, **options})
    template = training.create(conv_bench.classifier, recipe.optimizer(steps_per_epoch=4))
    states = []
    for name in ('loop', 'scan', 'parts'):
        with training.CheckpointStore(tmp_path / name / 'checkpoints', keep_all=True) as store:
            states.append(digest(store.restore(2, template)))
    assert states[0] == states[1] == states[2]
    logs = [
        [{**json.loads(line), 'seconds': 0} for line in (tmp_path / name / 'metrics.jsonl').read_text().splitlines()]
        for name in ('loop', 'scan', 'parts')
    ]
    assert logs[0] == logs[1] == logs[2]


def prepared(bench, devices, *, scan):
    """Returns the step, its state, and the batches and the key of an epoch of four steps, all on the devices."""
    mesh = sharding.data_mesh(jax.devices()[:devices])
    c, tx = bench.classifier, optax.chain(optim.rfn_sam(0.3), DESCENT)
    augment = data.CropAndFlip(crop_padding=1, flip=True)
    step = training.train_step(c.module, c.mean, c.std, tx, augment, mesh, scan=scan)
    state = sharding.replicate(training.create(c, tx), mesh)
    loader = data.ResidentLoader(bench.train, batch_size=16, seed=0, mesh=mesh)
    key = jax.device_put(rng.key_for(0, 'augment', 1), sharding.replicated(mesh))
    return step, state, list(loader.epoch(1, steps_per_call=4 if scan else 1)), key


@pytest.mark.parametrize('devices', [1, 8])
@pytest.mark.parametrize('scan', [False, True])
def test_an_epoch_transfers_nothing_and_compiles_nothing_again(conv_bench, devices, scan):
    step, state, batches, key = prepared(conv_bench, devices, scan=scan)
    state, _ = step(state, batches[0], key)  # compiles
    with jax.transfer_guard('disallow'), jax.no_tracing():
        for batch in batches:
            state, metrics = step(state, batch, key)
    assert step._cache_size() == 1
    assert metrics['loss'].shape == ((4,) if scan else ())


@pytest.mark.parametrize('scan', [False, True])
def test_the_program_has_no_host_transfer_and_reuses_the_whole_state(conv_bench, scan):
    step, state, batches, key = prepared(conv_bench, 1, scan=scan)
    text = step.lower(state, batches[0], key).compile().as_text()
    assert not re.search(r' (infeed|outfeed|send|recv)(-start|-done)?\(|xla_python_cpu_callback|xla_ffi_python', text)
    (aliases,) = re.findall(r'input_output_alias=\{(.*?)\}, entry', text)
    # The whole state except two figures of the minimizer's last step, which no step reads.
    leaves = len(jax.tree.leaves(state))
    reused = re.findall(r'\{(\d*)\}: \(\d+, \{\}', aliases)
    assert len(set(map(int, reused)) & set(range(leaves))) == leaves - (0 if scan else 2)


def test_steps_per_call_must_be_a_count(conv_bench, tmp_path):
    with pytest.raises(InputError, match='steps_per_call must be an integer of at least 1, got 0'):
        conv_bench.fit(tmp_path, steps_per_call=0)

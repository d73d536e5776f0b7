"""Several steps in one call: the same bits, one compilation, no transfers between device and host, and a reused state."""

import re

import jax
import numpy as np
import optax
import pytest
from batch_of import metrics_of

from rfn_jax import data, optim, training
from rfn_jax.core import rng, sharding
from rfn_jax.core.errors import InputError

DESCENT = optim.momentum_sgd(0.05, momentum=0.9, weight_decay=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('network', 'minimizer'), [('bench', {'name': 'looksam', 'k': 2}), ('conv_bench', {'name': 'rfn_sam', 'rho': 0.2})]
)
def test_an_epoch_by_scan_equals_the_loop_bit_for_bit(network, minimizer, tmp_path, request):
    bench, found = request.getfixturevalue(network), []
    for steps_per_call in (1, 4, 3):  # an epoch has 4 steps
        directory = tmp_path / str(steps_per_call)
        options = {'steps_per_call': steps_per_call, 'minimizer': minimizer, 'epochs': 2}
        bench.fit(directory, devices=jax.devices()[:1], **options)
        found.append((bench.digest(directory, 2, minimizer=minimizer), metrics_of(directory)))
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
@pytest.mark.parametrize('devices', [1, pytest.param(8, marks=pytest.mark.slow)])
def test_an_epoch_transfers_nothing_compiles_nothing_again_and_reuses_the_whole_state(bench, devices):
    mesh = sharding.data_mesh(jax.devices()[:devices])
    c, tx = bench.classifier, optax.chain(optim.rfn_sam(0.3), DESCENT)
    augment = data.CropAndFlip(crop_padding=1, flip=True)
    loader = data.ResidentLoader(bench.train, batch_size=16, seed=0, mesh=mesh)
    key = jax.device_put(rng.key_for(0, 'augment', 1), sharding.replicated(mesh))
    found = []
    for scan in (False, True):
        step = training.train_step(c.module, c.mean, c.std, tx, augment, mesh, scan=scan)
        batches = list(loader.epoch(1, steps_per_call=4 if scan else 1))
        state = sharding.replicate(training.create(c, tx), mesh)
        text = step.lower(state, batches[0], key).compile().as_text()
        transfers = r' (infeed|outfeed|send|recv)(-start|-done)?\(|xla_python_cpu_callback|xla_ffi_python'
        assert not re.search(transfers, text)
        (aliases,) = re.findall(r'input_output_alias=\{(.*?)\}, entry', text)
        # The whole state except two figures of the minimizer's last step, which no step reads.
        leaves = len(jax.tree.leaves(state))
        reused = re.findall(r'\{(\d*)\}: \(\d+, \{\}', aliases)
        assert len(set(map(int, reused)) & set(range(leaves))) == leaves - (0 if scan else 2)
        step(state, batches[0], key)  # compiles
        state = sharding.replicate(training.create(c, tx), mesh)
        with jax.transfer_guard('disallow'), jax.no_tracing():
            for batch in batches:
                state, metrics = step(state, batch, key)
        assert step._cache_size() == 1
        assert metrics['loss'].shape == ((4,) if scan else ())
        found.append(jax.device_get(state))
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_steps_per_call_must_be_a_count(bench, tmp_path):
    with pytest.raises(InputError, match='steps_per_call must be an integer of at least 1, got 0'):
        bench.fit(tmp_path, steps_per_call=0)

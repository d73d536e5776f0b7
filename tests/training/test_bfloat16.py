"""Training in bfloat16 from a config: what remains float32, and what remains exact."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfn_jax import data, models, training
from rfn_jax.core import digests, errors, sharding


@pytest.fixture(scope='module')
def narrow(conv_bench):
    """The network of `conv_bench` with the same initial values, computed in bfloat16."""
    spec = {'name': 'resnet', 'stage_sizes': (1, 1), 'widths': (4, 8), 'dtype': 'bfloat16'}
    module = models.from_spec(spec, num_classes=10)
    return dataclasses.replace(conv_bench, classifier=conv_bench.classifier.replace(module=module))


def restored(bench, directory, epoch):
    return jax.device_get(bench.state(directory, epoch))


def test_states_are_float32_and_near_those_of_a_float32_training(conv_bench, narrow, tmp_path):
    for name, bench in (('wide', conv_bench), ('narrow', narrow)):
        bench.fit(tmp_path / name, epochs=2)
    wide, state = (restored(b, tmp_path / name, 2) for name, b in (('wide', conv_bench), ('narrow', narrow)))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {'float32', 'int32'}
    distance = optax.tree.norm(optax.tree.sub(state.params, wide.params)) / optax.tree.norm(wide.params)
    assert 0 < float(distance) < 0.05
    lines = [json.loads(line) for line in (tmp_path / 'narrow' / 'metrics.jsonl').read_text().splitlines()]
    np.testing.assert_allclose([line['perturbation_norm'] for line in lines], 0.2, rtol=1e-5)


def test_a_run_that_stopped_ends_with_the_same_bits(narrow, tmp_path):
    narrow.fit(tmp_path / 'whole', epochs=2)
    shutil.copytree(tmp_path / 'whole', tmp_path / 'part')
    shutil.rmtree(tmp_path / 'part' / 'checkpoints' / '2')
    narrow.fit(tmp_path / 'part', epochs=2)
    whole, part = (digests.of_arrays(restored(narrow, tmp_path / name, 2)) for name in ('whole', 'part'))
    assert whole == part


def test_it_is_measured_in_float32(narrow, tmp_path):
    narrow.fit(tmp_path, epochs=1)
    classifier = narrow.classifier.replace(variables=restored(narrow, tmp_path, 1).variables)
    wide = classifier.replace(module=classifier.module.clone(dtype=jnp.float32))
    everything = data.SOURCES.make('digits').test
    expected = np.argmax(wide(everything.images.astype(np.float32) / 255), -1)
    found = training.predict(classifier, everything, batch_size=160, mesh=sharding.data_mesh())
    np.testing.assert_array_equal(found, expected)
    (line,) = (tmp_path / 'metrics.jsonl').read_text().splitlines()
    right = np.argmax(wide(narrow.validation.images.astype(np.float32) / 255), -1) == narrow.validation.labels
    assert json.loads(line)['validation_accuracy'] == pytest.approx(np.mean(right))


def test_a_module_of_another_library_is_left_as_it_is():
    class Constant:
        def apply(self, variables, x, train):
            return jnp.zeros((len(x), 10)).at[:, 3].set(1.0)

    classifier = models.Classifier({}, Constant(), 10)
    assert models.full_precision(classifier) is classifier


@pytest.mark.parametrize('dtype', ['int32', 'float8', 'floa32', None, 16])
def test_other_types_are_refused(dtype):
    with pytest.raises(errors.InputError, match=r'dtype of model .mlp. must be one of float32, bfloat16, float16, got'):
        models.from_spec({'name': 'mlp', 'dtype': dtype}, num_classes=2)


@pytest.mark.parametrize('name', ['cifar_resnet20', 'cifar_vit', 'cifar_convnext', 'cifar_vgg11', 'mlp'])
def test_a_network_that_a_config_asks_for_in_bfloat16_computes_in_it(name):
    module = models.from_spec({'name': name, 'dtype': 'bfloat16'}, num_classes=10)
    classifier = models.abstract(module, (32, 32, 3), num_classes=10)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(classifier.variables)} == {'float32'}
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    text = jax.jit(lambda c, x: c(x)).lower(classifier, images).as_text()
    assert 'bf16' in text
    assert 'bf16' not in jax.jit(lambda c, x: c(x)).lower(models.full_precision(classifier), images).as_text()
    assert jax.eval_shape(lambda c, x: c(x), classifier, images).dtype == jnp.float32

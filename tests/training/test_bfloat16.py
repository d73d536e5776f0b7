"""Training in bfloat16 from a config: what remains float32, and what remains exact."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from batch_of import metrics_of

from rfn_jax import data, models, training
from rfn_jax.core import errors, sharding

NETWORKS = {
    'bench': {'name': 'mlp', 'widths': (32,)},
    'conv_bench': {'name': 'resnet', 'stage_sizes': (1,), 'widths': (4,)},
}


@pytest.fixture(scope='module', params=['bench', pytest.param('conv_bench', marks=pytest.mark.slow)])
def narrow(request, trained, tmp_path_factory):
    """A network with the same initial values as that of a bench, computed in bfloat16; a training of three epochs; and
    the state after one in float32."""
    wide = request.getfixturevalue(request.param)
    module = models.from_spec({**NETWORKS[request.param], 'dtype': 'bfloat16'}, num_classes=10)
    bench = dataclasses.replace(wide, classifier=wide.classifier.replace(module=module), programs={})
    directory = tmp_path_factory.mktemp('narrow')
    bench.fit(directory)
    if request.param == 'conv_bench':
        trained = tmp_path_factory.mktemp('wide')
        wide.fit(trained)
    return bench, directory, wide.state(trained, 3)


@pytest.mark.slow
def test_states_are_float32_and_near_those_of_a_float32_training(narrow):
    bench, directory, expected = narrow
    state = bench.state(directory, 3)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {'float32', 'int32'}
    distance = optax.tree.norm(optax.tree.sub(state.params, expected.params)) / optax.tree.norm(expected.params)
    assert 0 < float(distance) < 0.05
    np.testing.assert_allclose([line['perturbation_norm'] for line in metrics_of(directory)], 0.2, rtol=1e-5)


def test_a_run_that_stopped_ends_with_the_same_bits(narrow, tmp_path):
    bench, directory, _ = narrow
    shutil.copytree(directory, tmp_path / 'part')
    shutil.rmtree(tmp_path / 'part' / 'checkpoints' / '3')
    bench.fit(tmp_path / 'part')
    assert bench.digest(tmp_path / 'part', 3) == bench.digest(directory, 3)


def test_it_is_measured_in_float32(narrow):
    bench, directory, _ = narrow
    classifier = bench.classifier.replace(variables=bench.state(directory, 3).variables)
    wide = classifier.replace(module=classifier.module.clone(dtype=jnp.float32))
    everything = data.SOURCES.make('digits').test
    expected = np.argmax(wide(everything.images.astype(np.float32) / 255), -1)
    found = training.predict(classifier, everything, batch_size=160, mesh=sharding.data_mesh())
    np.testing.assert_array_equal(found, expected)
    right = np.argmax(wide(bench.validation.images.astype(np.float32) / 255), -1) == bench.validation.labels
    assert metrics_of(directory)[-1]['validation_accuracy'] == pytest.approx(np.mean(right))


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
    for c, in_bfloat16 in ((classifier, True), (models.full_precision(classifier), False)):
        traced = jax.jit(lambda c, x: c(x)).trace(c, images)
        assert ('bf16' in str(traced.jaxpr)) == in_bfloat16
        assert traced.out_info.dtype == jnp.float32

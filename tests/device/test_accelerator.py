"""Compares the computations of the default device with float64 on the CPU, within stated tolerances.

Run these tests on an accelerator with `pytest -n 0 -m accelerator`; on a CPU they check its own float32. Other tests with
that mark compare the device with textbook implementations, or check that training resumes exactly.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from attacks import small_networks

from rfn_jax import attacks, data, models, optim, training
from rfn_jax.core import losses, rng, sharding

pytestmark = pytest.mark.accelerator

KINDS = ('bottleneck', 'vit', 'densenet', 'mobilenet_v2', 'efficientnet')
N, SHAPE = 16, (6, 6, 3)
IMAGES = np.random.default_rng(0).uniform(size=(N, *SHAPE))
LABELS = np.random.default_rng(1).integers(5, size=N)


def outcome(classifier, images):
    """Logits and the gradients with respect to the parameters and the images, from one compiled program."""

    def mean_loss(classifier, images):
        return jnp.mean(losses.cross_entropy(classifier(images), LABELS))

    gradients = jax.grad(mean_loss, argnums=(0, 1), allow_int=True)
    return jax.jit(lambda c, x: (c(x), *gradients(c, x)))(classifier, images)


def exact(function, classifier):
    """What a function of a classifier and images gives in float64 on the CPU."""
    with jax.enable_x64(True), jax.default_device(jax.devices('cpu')[0]):
        wide = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), classifier.variables)
        module = classifier.module.clone(dtype=jnp.float64)
        return jax.device_get(function(classifier.replace(variables=wide, module=module), jnp.asarray(IMAGES)))


def on_device(function, classifier, dtype):
    """What it gives with computations in another dtype on the default device."""
    narrow = classifier.replace(module=classifier.module.clone(dtype=jnp.dtype(dtype)))
    with jax.default_matmul_precision('float32'):
        return jax.device_get(function(narrow, jnp.asarray(IMAGES, jnp.float32)))


def distance(found, expected):
    """The Euclidean distance between two pytrees, divided by the norm of the second."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs]
    return np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs) / sum(np.sum(b**2) for _, b in pairs))


@pytest.mark.parametrize('kind', ['resnet', *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS)])
def test_logits_and_gradients_of_a_family(kind):
    classifier = small_networks.classifier(kind)
    expected = exact(outcome, classifier)
    for dtype, tolerance in (('float32', 2e-5), ('bfloat16', 0.15)):
        found = on_device(outcome, classifier, dtype)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} == {'float32'}
        for part, wanted in zip(found, expected, strict=True):
            assert distance(part, wanted) < tolerance, dtype


@pytest.mark.slow
def test_an_attack_agrees_with_float64():
    classifier, keys = small_networks.classifier('resnet'), jax.random.split(jax.random.key(0), N)
    attack = attacks.mi_fgsm(eps=0.5, steps=5, norm='l2')

    def change(classifier, images):
        return attack(classifier, images, LABELS, keys) - images

    expected = exact(change, classifier)
    for dtype, tolerance in (('float32', 1e-3), ('bfloat16', 0.2)):
        found = on_device(change, classifier, dtype)
        assert np.all(np.sqrt(np.sum(found**2, axis=(1, 2, 3))) <= 0.5 + 1e-5)
        assert distance(found, expected) < tolerance, dtype


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['float32', pytest.param('bfloat16', marks=pytest.mark.slow)])
def test_steps_in_a_scan_agree_with_single_steps(dtype):
    spec = {'name': 'resnet', 'stage_sizes': (1,), 'widths': (8,), 'dtype': dtype}
    module = models.from_spec(spec, num_classes=5)
    classifier = models.initialize(module, rng.key_for(0, 'test'), SHAPE, num_classes=5)
    mesh = sharding.data_mesh(jax.devices()[:1])
    tx = optax.chain(optim.rfn_sam(0.4), optim.momentum_sgd(0.05, momentum=0.9, weight_decay=5e-4))
    images = (IMAGES * 255).astype(np.uint8)
    examples = data.ImageDataset(images, LABELS.astype(np.int32), np.arange(N), tuple('abcde'), 'noise')
    loader = data.ResidentLoader(examples, batch_size=4, seed=2, mesh=mesh)
    key = rng.key_for(0, 'augment', 1)

    def after(scan):
        step = training.train_step(module, classifier.mean, classifier.std, tx, lambda x, keys: x, mesh, scan=scan)
        state = sharding.replicate(training.create(classifier, tx), mesh)
        for batch in loader.epoch(1, steps_per_call=4 if scan else 1):
            state, metrics = step(state, batch, key)
        return jax.device_get((state, jax.tree.map(lambda m: np.ravel(m)[-1], metrics)))

    (one_by_one, metrics), (scanned, scan_metrics) = after(False), after(True)
    tolerance = 1e-4 if dtype == 'float32' else 5e-2
    assert distance(scanned.params, one_by_one.params) < tolerance
    assert int(scanned.step) == 4
    assert metrics['perturbation_norm'] == pytest.approx(0.4, rel=1e-4)
    assert scan_metrics['loss'] == pytest.approx(metrics['loss'], rel=tolerance)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(scanned)} == {'float32', 'int32'}

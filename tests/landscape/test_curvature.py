import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from landscape import quadratics

from rfn_jax import data, landscape, models
from rfn_jax.core import errors, rng, sharding

SPECTRUM = [9.0, 4.0, 1.0, 0.5, -2.0, -3.0]
KEY = jax.random.key(0)
value = jax.jit(landscape.MeanLoss.__call__)


@pytest.fixture(scope='module')
def quadratic():
    return quadratics.quadratic(SPECTRUM)


def network(batch_size=64, devices=1, count=150, **options):
    """The loss of a small network with batch normalization on digits, and its parameters."""
    splits = data.SOURCES.make('digits')
    examples = splits.train.take(np.arange(count))
    module = models.MODELS.make('resnet', num_classes=10, stage_sizes=(1,), widths=(3,), **options)
    initial = models.initialize(module, rng.key_for(0, 'test'), (8, 8, 1), num_classes=10, mean=(0.5,), std=(0.3,))
    mesh = sharding.data_mesh(jax.devices()[:devices])
    return landscape.of_classifier(initial, examples, batch_size=batch_size, mesh=mesh), initial, examples


def test_the_loss_its_gradient_and_its_hessian_are_those_of_the_quadratic(quadratic):
    loss, hessian, center = quadratic
    w, v = np.random.default_rng(1).normal(size=(2, 6))
    np.testing.assert_allclose(loss(quadratics.tree(w)), (w - center) @ hessian @ (w - center) / 2, rtol=1e-5)
    gradient = quadratics.flat(loss.gradient(quadratics.tree(w)))
    np.testing.assert_allclose(gradient, hessian @ (w - center), rtol=1e-4, atol=1e-5)
    product = quadratics.flat(loss.hvp(quadratics.tree(w), quadratics.tree(v)))
    np.testing.assert_allclose(product, hessian @ v, rtol=1e-4, atol=1e-5)


def test_eigenvalues_trace_and_density_of_a_quadratic(quadratic):
    loss, _, center = quadratic
    params = quadratics.tree(center)
    found = landscape.eigenvalues(loss, params, KEY, count=3, steps=6)
    np.testing.assert_allclose(found.values, SPECTRUM[:3], rtol=1e-4)
    assert np.all(found.errors < 1e-3)
    trace = landscape.trace(loss, params, KEY, samples=400)
    assert abs(trace.mean - sum(SPECTRUM)) < 3 * trace.standard_error < 3
    density = landscape.density(loss, params, KEY, steps=6, samples=4)
    np.testing.assert_allclose(density.weights.sum(), 1, rtol=1e-4)
    for nodes in density.nodes:
        np.testing.assert_allclose(np.sort(nodes), np.sort(SPECTRUM), rtol=1e-3)
    grid = np.linspace(-6, 12, 2000)
    np.testing.assert_allclose(np.trapezoid(density.smoothed(grid, 0.3), grid), 1, rtol=1e-3)


@pytest.mark.parametrize(
    ('spectrum', 'expected'), [([0.0] * 6, 0.0), ([4.0] * 6, 4.0), ([12.0, 0.0, 0.0, 0.0, 0.0, 0.0], 12.0)]
)
def test_hessians_that_exhaust_the_vectors_early(spectrum, expected):
    loss, _, center = quadratics.quadratic(spectrum)
    found = landscape.eigenvalues(loss, quadratics.tree(center), KEY, steps=6)
    np.testing.assert_allclose(found.values, [expected], rtol=1e-4, atol=1e-5)
    density = landscape.density(loss, quadratics.tree(center), KEY, steps=6, samples=2)
    np.testing.assert_allclose(density.weights.sum(), 1, rtol=1e-5)
    assert np.isfinite(density.nodes).all()


def test_the_error_bounds_an_unconverged_eigenvalue(quadratic):
    loss, _, center = quadratic
    found = landscape.eigenvalues(loss, quadratics.tree(center), KEY, steps=2)
    nearest = min(abs(found.values[0] - exact) for exact in SPECTRUM)
    assert 1e-3 < nearest <= found.errors[0]


@pytest.mark.slow
def test_a_network_agrees_with_its_dense_hessian_and_its_logits():
    (loss, params), classifier, examples = network()
    images, labels = examples.images.astype(np.float32) / 255, examples.labels
    logits = classifier(jnp.asarray(images))
    expected = -np.mean(np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), labels[:, None], 1))
    np.testing.assert_allclose(value(loss, params), expected, rtol=1e-5)
    dense = np.asarray(jax.jit(lambda params: _dense(loss, params))(params))
    exact = np.linalg.eigvalsh(dense)
    found = landscape.eigenvalues(loss, params, KEY, steps=40)
    np.testing.assert_allclose(found.values[0], exact[-1], rtol=1e-3)
    trace = landscape.trace(loss, params, KEY, samples=60)
    assert abs(trace.mean - np.trace(dense)) < 3 * trace.standard_error


def _dense(loss, params):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    columns = jnp.eye(flat.size, dtype=flat.dtype)
    return jax.lax.map(lambda v: jax.flatten_util.ravel_pytree(loss.hvp(params, unravel(v)))[0], columns)


def test_neither_batches_nor_devices_change_the_figures():
    (loss, params), *_ = network()
    (other, same), *_ = network(batch_size=40, devices=8)
    assert len(other.weights) != len(loss.weights)
    np.testing.assert_allclose(value(other, same), value(loss, params), rtol=1e-5)
    one, eight = (landscape.eigenvalues(x, p, KEY, steps=15).values for x, p in ((loss, params), (other, same)))
    np.testing.assert_allclose(eight, one, rtol=1e-3)


def test_low_precision_networks_are_measured_in_float32():
    (loss, params), *_ = network()
    (low, same), *_ = network(dtype='bfloat16')
    np.testing.assert_allclose(value(low, same), value(loss, params), rtol=1e-6)


@pytest.mark.parametrize(
    ('function', 'options', 'message'),
    [
        (landscape.eigenvalues, {'count': 0}, 'count must be an integer of at least 1, got 0'),
        (landscape.eigenvalues, {'count': 3, 'steps': 2}, 'steps must be an integer from 3 to 6, got 2'),
        (landscape.eigenvalues, {'steps': 7}, 'steps must be an integer from 1 to 6, got 7'),
        (landscape.trace, {'samples': 0}, 'samples must be an integer of at least 1, got 0'),
        (landscape.density, {'steps': 0}, 'steps must be an integer from 1 to 6, got 0'),
        (landscape.density, {'steps': 3, 'samples': 0}, 'samples must be an integer of at least 1, got 0'),
        (landscape.worst_case_sharpness, {'rho': -1}, 'rho must be a finite number at least 0, got -1'),
        (landscape.worst_case_sharpness, {'rho': 1, 'steps': 0}, 'steps must be an integer of at least 1, got 0'),
        (landscape.worst_case_sharpness, {'rho': 1, 'restarts': 0}, 'restarts must be an integer of at least 1, got 0'),
        (landscape.average_sharpness, {'rho': float('nan')}, 'rho must be a finite number at least 0, got nan'),
        (landscape.average_sharpness, {'rho': 1, 'samples': 0}, 'samples must be an integer of at least 1, got 0'),
    ],
)  # fmt: skip
def test_wrong_numbers(quadratic, function, options, message):
    with pytest.raises(errors.InputError, match=message):
        function(quadratic[0], quadratics.tree(quadratic[2]), KEY, **options)

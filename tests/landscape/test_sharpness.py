import jax
import jax.numpy as jnp
import numpy as np
import pytest
from landscape import quadratics

from rfn_jax import data, landscape, models
from rfn_jax.core import rng, sharding
from rfn_jax.optim import neighborhoods

SPECTRUM = [9.0, 4.0, 1.0, 0.5, -2.0, -3.0]
KEY = jax.random.key(0)


@pytest.fixture(scope='module')
def quadratic():
    return quadratics.quadratic(SPECTRUM)


def test_at_the_center_the_worst_case_is_along_the_largest_eigenvalue(quadratic):
    loss, _, center = quadratic
    found = landscape.worst_case_sharpness(loss, quadratics.tree(center), KEY, rho=0.5, steps=60)
    np.testing.assert_allclose(found, 9.0 * 0.5**2 / 2, rtol=1e-3)


def test_the_average_is_the_mean_eigenvalue(quadratic):
    loss, _, center = quadratic
    found = landscape.average_sharpness(loss, quadratics.tree(center), KEY, rho=0.5, samples=2000)
    assert abs(found.mean - np.mean(SPECTRUM) * 0.5**2 / 2) < 3 * found.standard_error < 0.1


@pytest.mark.parametrize('neighborhood', [neighborhoods.ball, neighborhoods.scaled_ball(0.01)])
def test_no_random_direction_is_worse_than_the_worst_case(quadratic, neighborhood):
    loss, _, center = quadratic
    params = quadratics.tree(center + 0.3)
    worst = landscape.worst_case_sharpness(loss, params, KEY, rho=0.4, neighborhood=neighborhood)

    def rise(key):
        draw = jax.tree.map(lambda w: jax.random.normal(key, w.shape), params)
        move = neighborhood(params, draw)
        return loss(jax.tree.map(lambda w, e: w + 0.4 * e, params, move)) - loss(params)

    rises = jax.jit(lambda keys: jax.lax.map(rise, keys))(jax.random.split(KEY, 1000))
    assert 0.2 * worst < jnp.max(rises) <= worst + 1e-5


def test_a_rise_inside_the_ball_counts_and_none_is_below_zero():
    loss, _, center = quadratics.quadratic([-2.0] * 6)
    near = quadratics.tree(center + 0.1 * np.eye(6)[0])  # the loss is highest at the center
    assert 0 < landscape.worst_case_sharpness(loss, near, KEY, rho=1.0, steps=30) <= 0.0101
    assert landscape.worst_case_sharpness(loss, quadratics.tree(center), KEY, rho=1.0) == pytest.approx(0, abs=1e-6)


def test_the_first_step_is_the_perturbation_of_sam(quadratic):
    loss, _, center = quadratic
    params = quadratics.tree(center + 0.3)
    perturbed = jax.tree.map(lambda w, e: w + 0.2 * e, params, neighborhoods.ball(params, loss.gradient(params)))
    found = landscape.worst_case_sharpness(loss, params, KEY, rho=0.2, steps=1, restarts=1)
    np.testing.assert_allclose(found, loss(perturbed) - loss(params), rtol=1e-4)  # higher than halfway to it


def test_a_line_and_a_plane_through_a_quadratic(quadratic):
    loss, hessian, center = quadratic
    start, end = center, center + np.arange(6) / 5
    positions = np.array([-0.5, 0.0, 0.3, 1.0])
    step = end - start
    expected = positions**2 * (step @ hessian @ step) / 2
    found = landscape.line(loss, quadratics.tree(start), quadratics.tree(end), positions)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    other = np.eye(6)[0]
    found = landscape.plane(loss, quadratics.tree(start), (quadratics.tree(step), quadratics.tree(other)), positions)
    for i, a in enumerate(positions):
        for j, b in enumerate(positions):
            move = a * step + b * other
            np.testing.assert_allclose(found[i, j], move @ hessian @ move / 2, rtol=1e-4, atol=1e-5)


def test_a_line_interpolates_the_constants_if_they_are_given(quadratic):
    loss, _, center = quadratic
    params = quadratics.tree(center)
    other = loss.constants | {'center': loss.constants['center'] + 1}
    found = landscape.line(loss, params, params, [0.0, 1.0], constants=(loss.constants, other))
    np.testing.assert_allclose(found, [loss(params), loss.replace(constants=other)(params)], rtol=1e-5, atol=1e-6)


def test_filters_of_the_direction_have_the_norms_of_those_of_the_weights():
    params = {'conv': jnp.arange(54.0).reshape(3, 3, 2, 3), 'dense': jnp.zeros((4, 2)), 'bias': jnp.ones(3)}
    direction = landscape.filter_normalized(params, KEY)
    norms = [np.sqrt(np.sum(np.square(tree['conv']), axis=(0, 1, 2))) for tree in (params, direction)]
    np.testing.assert_allclose(*norms, rtol=1e-5)
    assert not np.any(direction['dense'])
    assert not np.any(direction['bias'])
    again = landscape.filter_normalized(params, jax.random.key(1))
    assert not np.allclose(direction['conv'], again['conv'])


def test_cosines_of_input_gradients():
    splits = data.SOURCES.make('digits')
    examples = splits.test.take(np.arange(21))
    module = models.MODELS.make('mlp', num_classes=10, widths=(8,))
    first, second = (
        models.initialize(module, rng.key_for(seed, 'test'), (8, 8, 1), num_classes=10) for seed in range(2)
    )
    zero = first.replace(variables=jax.tree.map(jnp.zeros_like, first.variables))
    mesh = sharding.data_mesh(jax.devices()[:2])
    targets = {'itself': first, 'other': second, 'zero': zero}
    found = landscape.input_gradient_cosines(first, targets, examples, batch_size=8, mesh=mesh)
    np.testing.assert_allclose(found['itself'], np.ones(21), rtol=1e-5)
    np.testing.assert_array_equal(found['zero'], np.zeros(21))

    def gradient(network, image, label):
        return jax.grad(lambda x: -jax.nn.log_softmax(network(x[None])[0])[label])(image).ravel()

    for index in (0, 20):
        image = jnp.asarray(examples.images[index], jnp.float32) / 255
        a, b = (gradient(network, image, examples.labels[index]) for network in (first, second))
        expected = a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)
        np.testing.assert_allclose(found['other'][index], expected, rtol=1e-4)

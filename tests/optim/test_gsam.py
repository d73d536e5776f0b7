import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
import textbook

from rfn_jax import optim

RHO = 0.4


def update(alpha, problem):
    tx, gradient = optim.gsam(RHO, alpha=alpha), problem.jitted[0]
    return tx.update(gradient(problem.params), tx.init(problem.params), problem.params, grad_fn=gradient)[0]


@pytest.mark.parametrize('name', problems.PROBLEMS)
def test_the_subtracted_part_is_orthogonal_to_the_perturbed_gradient(name):
    problem = problems.PROBLEMS[name]()
    flat = textbook.Flat(problem)
    g = flat.gradient(flat.start)
    g_p = flat.vector(update(0, problem))
    subtracted = (g_p - flat.vector(update(0.7, problem))) / 0.7
    assert abs(subtracted @ g_p) < 1e-6 * textbook.norm(g) * textbook.norm(g_p)
    # g = g_parallel + g_perpendicular, with g_parallel along g_p.
    along = g - subtracted
    cosine = along @ g_p / (textbook.norm(along) * textbook.norm(g_p))
    assert abs(cosine) == pytest.approx(1, abs=1e-6)
    assert textbook.norm(subtracted) > 1e-3
    # Descending along -g_perpendicular increases the loss and so reduces the gap.
    assert g @ subtracted == pytest.approx(subtracted @ subtracted, rel=1e-4)


def test_nothing_is_subtracted_if_the_direction_of_the_gradient_is_constant():
    direction = jnp.asarray([3.0, -1.0, 2.0])

    def grad_fn(params):  # of (d . w)^2 / 2: always along d
        return direction * (direction @ params)

    params = jnp.asarray([1.0, 2.0, -3.0])
    tx = optim.gsam(RHO, alpha=1e4)
    updates, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
    expected = grad_fn(params + RHO * textbook.unit(np.asarray(grad_fn(params))))
    np.testing.assert_allclose(updates, expected, rtol=5e-3)  # 1e4 times the rounding error


def test_rho_that_follows_the_learning_rate_as_in_the_paper():
    rate = optax.linear_schedule(0.1, 0.0, 4)
    rho = optim.rho_with_learning_rate(rate, rho_min=0.1, rho_max=0.5, learning_rate_max=0.1)
    problem = problems.convex()
    gradient, _ = problem.jitted
    tx = optax.chain(optim.gsam(rho), optax.sgd(rate))
    params, state, found = problem.params, tx.init(problem.params), []
    for _ in range(5):
        updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
        params = optax.apply_updates(params, updates)
        found.append(float(optax.tree.get(state, 'perturbation_norm')))
    np.testing.assert_allclose(found, [0.5, 0.4, 0.3, 0.2, 0.1], rtol=1e-5)
    assert jax.tree.all(jax.tree.map(lambda u: bool(jnp.all(u == 0)), updates))

import family
import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
import textbook

from rfn_jax import optim


def run(tx, steps, grad_fn=None):
    """Trains `convex`; returns the gradient, update and state of each step, and how often `grad_fn` was called."""
    problem, calls = problems.convex(), []

    def counted(params):
        jax.debug.callback(lambda: calls.append(None))
        return (grad_fn or problem.grad_fn)(params)

    @jax.jit
    def step(params, state):
        g = (grad_fn or problem.grad_fn)(params)
        updates, state = tx.update(g, state, params, grad_fn=counted)
        return jax.tree.map(lambda w, u: w - 0.1 * u, params, updates), state, g, updates

    params, state, found = problem.params, tx.init(problem.params), []
    for _ in range(steps):
        params, state, g, updates = step(params, state)
        found.append((g, updates, state))
    jax.effects_barrier()
    return found, len(calls)


@pytest.mark.parametrize(('k', 'ascents'), [(1, 7), (3, 3), (7, 1)])
def test_it_ascends_at_every_k_th_update_only(k, ascents):
    found, calls = run(optim.looksam(0.3, k=k), 7)
    assert calls == ascents
    radii = [float(optax.tree.get(state, 'perturbation_norm')) for _, _, state in found]
    np.testing.assert_allclose(radii, [0.3 if t % k == 0 else 0 for t in range(7)], rtol=1e-5)


def test_the_compiled_path_equals_the_textbook():
    flat = textbook.Flat(problems.convex())
    found, _ = run(optim.looksam(0.3, k=3, alpha=0.6), 12)
    rule = textbook.looksam(flat, rho=0.3, k=3, alpha=0.6)
    path = textbook.descend(flat, rule, 12, learning_rate=0.1, momentum=0)
    updates = np.array([flat.vector(updates) for _, updates, _ in found])
    np.testing.assert_allclose(flat.start - 0.1 * np.cumsum(updates, axis=0), path, atol=1e-5)


def test_the_reused_part_has_alpha_times_the_norm_of_the_gradient():
    flat = textbook.Flat(problems.convex())
    found, _ = run(optim.looksam(0.3, k=4, alpha=0.6), 4)
    g, updates, state = (flat.vector(part) for part in (found[0][0], found[0][1], found[0][2].orthogonal))
    assert abs(g @ state) < 1e-6 * textbook.norm(g) * textbook.norm(updates)
    np.testing.assert_allclose(updates - state, (updates @ g) / (g @ g) * g, atol=1e-6)
    for g, updates, later in found[1:]:
        family.assert_close(later.orthogonal, found[0][2].orthogonal, atol=0)
        added = flat.vector(updates) - flat.vector(g)
        assert textbook.norm(added) == pytest.approx(0.6 * textbook.norm(flat.vector(g)), rel=1e-5)
        np.testing.assert_allclose(textbook.unit(added), textbook.unit(state), atol=1e-5)


def test_alpha_zero_is_sgd_between_the_ascents():
    found, _ = run(optim.looksam(0.3, k=3, alpha=0), 6)
    for t, (g, updates, _) in enumerate(found):
        if t % 3:
            family.assert_close(updates, g, atol=0)
        else:
            assert family.distance(updates, g) > 1e-3


def test_rounding_error_is_not_taken_for_an_orthogonal_part():
    # The gradient of (d . w)^2 / 2 is along d everywhere: there is nothing to reuse but rounding error.
    d = jnp.asarray(np.random.default_rng(0).normal(size=8), jnp.float32)

    def grad_fn(params):
        return {'kernel': d * (d @ params['kernel']), 'bias': jnp.zeros(())}

    found, _ = run(optim.looksam(0.3, k=3), 6, grad_fn=grad_fn)
    assert family.distance(found[0][2].orthogonal, jax.tree.map(jnp.zeros_like, found[0][0])) > 0
    for t, (g, updates, _) in enumerate(found):
        if t % 3:
            family.assert_close(updates, g, atol=1e-6)


def test_the_gradient_norm_is_over_the_masked_parameters_at_every_update():
    found, _ = run(optim.looksam(0.3, k=2, mask={'kernel': True, 'bias': False}), 4)
    for g, _, state in found:
        assert float(state.sam.gradient_norm) == pytest.approx(textbook.norm(np.asarray(g['kernel'])), rel=1e-5)
        assert abs(float(g['bias'])) > 1e-2


def test_k_may_be_injected_and_set():
    problem = problems.convex()
    tx = optax.inject_hyperparams(optim.looksam, static_args='mask')(0.3, k=3)
    state, ascents = tx.init(problem.params), []
    g = problem.grad_fn(problem.params)
    update = jax.jit(lambda state: tx.update(g, state, problem.params, grad_fn=problem.grad_fn))
    for t in range(6):
        if t == 3:
            state.hyperparams['k'] = jnp.asarray(2)
        _, state = update(state)
        ascents.append(int(state.inner_state.sam.ascent_count))
    assert ascents == [1, 1, 1, 1, 2, 2]  # at 0 with k = 3, at 4 with k = 2

"""What is particular to single methods; `test_textbook.py` has their values."""

import dataclasses
import math

import family
import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
import textbook

from rfn_jax import optim
from rfn_jax.core import sharding
from rfn_jax.optim import random_trees

RHO = 0.4


def loss(params):
    """A linear network of two layers without biases: (c W, V / c) gives the same function for every c."""
    x = jnp.asarray([0.3, -1.2, 0.7])
    return jnp.sum((params['V'] @ (params['W'] @ x) - 1.0) ** 2)


def perturbed(tx, params):
    return family.one_update(tx, params, jax.grad(loss))[0]


@pytest.mark.parametrize('c', [4.0, 0.01])
def test_rescaling_layers_does_not_matter_for_asam_unlike_for_sam(c):
    rng = np.random.default_rng(0)
    params = {'W': jnp.float32(rng.normal(size=(4, 3))), 'V': jnp.float32(rng.normal(size=(2, 4)))}
    rescaled = {'W': params['W'] * c, 'V': params['V'] / c}
    assert float(loss(rescaled)) == pytest.approx(float(loss(params)), rel=1e-5)
    asam, sam = optim.asam(0.3, eta=0), optim.sam(0.3)
    at, at_rescaled = perturbed(asam, params), perturbed(asam, rescaled)
    family.assert_close({'W': at['W'] * c, 'V': at['V'] / c}, at_rescaled, atol=1e-5 * max(c, 1 / c))
    assert float(loss(at_rescaled)) == pytest.approx(float(loss(at)), rel=1e-4)
    assert float(loss(perturbed(sam, rescaled))) != pytest.approx(float(loss(perturbed(sam, params))), rel=0.1)


def test_weights_of_zero_move_by_the_eta_of_asam_only():
    params = {'W': jnp.zeros((4, 3)).at[0, 0].set(1.0), 'V': jnp.ones((2, 4))}
    assert np.count_nonzero(perturbed(optim.asam(0.3, eta=0), params)['W']) == 1
    assert np.count_nonzero(perturbed(optim.asam(0.3, eta=0.01), params)['W']) == 12
    zeros = jax.tree.map(jnp.zeros_like, params)
    family.assert_close(perturbed(optim.asam(0.3, eta=0), zeros), zeros, atol=0)


def test_gsam_subtracts_nothing_if_the_direction_of_the_gradient_is_constant():
    direction, params = jnp.asarray([3.0, -1.0, 2.0]), jnp.asarray([1.0, 2.0, -3.0])

    def gradient(params):  # of (d . w)^2 / 2: always along d
        return direction * (direction @ params)

    _, updates, _ = family.one_update(optim.gsam(RHO, alpha=1e4), params, gradient)
    expected = gradient(params + RHO * textbook.unit(np.asarray(gradient(params))))
    np.testing.assert_allclose(updates, expected, rtol=5e-3)  # 1e4 times the rounding error


def test_rho_of_gsam_that_follows_the_learning_rate_as_in_the_paper():
    rate = optax.linear_schedule(0.1, 0.0, 4)
    rho = optim.rho_with_learning_rate(rate, rho_min=0.1, rho_max=0.5, learning_rate_max=0.1)
    steps = family.train(optax.chain(optim.gsam(rho), optax.sgd(rate)), problems.convex(), 5)
    found = [float(optax.tree.get(state, 'perturbation_norm')) for _, _, state in steps]
    np.testing.assert_allclose(found, [0.5, 0.4, 0.3, 0.2, 0.1], rtol=1e-5)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(steps[-1][1]))


@pytest.mark.parametrize(('k', 'ascents'), [(1, 7), (3, 3), (7, 1)])
def test_looksam_ascends_at_every_k_th_update_only(k, ascents):
    calls = []

    def counted(params):
        jax.debug.callback(lambda: calls.append(None))
        return problems.convex().grad_fn(params)

    found = family.train(optim.looksam(0.3, k=k), problems.convex(), 7, grad_fn=counted)
    jax.effects_barrier()
    assert len(calls) == ascents
    radii = [float(state.sam.perturbation_norm) for _, _, state in found]
    np.testing.assert_allclose(radii, [0.3 if t % k == 0 else 0 for t in range(7)], rtol=1e-5)


def looksam_steps(problem, steps, **options):
    """The gradient, the update and the state of each step."""
    found = family.train(optax.chain(optim.looksam(0.3, **options), optax.scale(-0.0625)), problem, steps)
    before = [problem.params, *(params for params, _, _ in found)]
    updates = [jax.tree.map(lambda u: -16 * u, updates) for _, updates, _ in found]
    return zip(map(problem.jitted[0], before), updates, [state[0] for _, _, state in found], strict=False)


def test_looksam_does_not_take_rounding_error_for_an_orthogonal_part():
    # The gradient of (d . w)^2 / 2 is along d everywhere: there is nothing to reuse but rounding error.
    d = jnp.asarray(np.random.default_rng(0).normal(size=8), jnp.float32)
    problem = dataclasses.replace(problems.convex(), losses_on=lambda w, x, y: (d @ w['kernel']) ** 2 / 2)
    for t, (g, updates, state) in enumerate(looksam_steps(problem, 6, k=3)):
        assert float(optax.tree.norm(state.orthogonal)) > 0
        if t % 3:
            family.assert_close(updates, g, atol=1e-6)


def test_the_gradient_norm_of_looksam_is_over_the_masked_parameters_at_every_update():
    for g, _, state in looksam_steps(problems.convex(), 4, k=2, mask={'kernel': True, 'bias': False}):
        assert float(state.sam.gradient_norm) == pytest.approx(textbook.norm(np.asarray(g['kernel'])), rel=1e-5)
        assert abs(float(g['bias'])) > 1e-2


def test_k_of_looksam_may_be_injected_and_set():
    tx = optax.inject_hyperparams(optim.looksam, static_args='mask')(0.3, k=3)

    def set_k(t, state):
        return state._replace(hyperparams=state.hyperparams | {'k': jnp.asarray(2 if t >= 3 else 3)})

    found = family.train(tx, problems.convex(), 6, change_state=set_k)
    ascents = [int(state.inner_state.sam.ascent_count) for _, _, state in found]
    assert ascents == [1, 1, 1, 1, 2, 2]  # at 0 with k = 3, at 4 with k = 2


GRADIENTS = [{'w': np.array([1.0, -2.0, 0.5]) * t, 'b': np.array(0.3 - t)} for t in range(1, 6)]


def feed(tx, gradients):
    """The perturbations and the averages, for given gradients that do not depend on the parameters."""
    params, directions, averages = {'w': jnp.zeros(3), 'b': jnp.zeros(())}, [], []
    state = tx.init(params)
    for g in gradients:
        g = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), g)
        point, _, state = family.one_update(tx, params, lambda params: params, grads=g, state=state)
        directions.append(point)
        averages.append(state.average)
    return directions, averages


@pytest.mark.parametrize('decay', [0.0, 0.7, 1.0])
@pytest.mark.parametrize('sigma', [0.0, 0.5, 1.0])
def test_the_average_and_the_direction_of_friendly_sam(decay, sigma):
    directions, averages = feed(optim.friendly_sam(0.3, sigma=sigma, decay=decay), GRADIENTS)
    m = None
    for g, e, average in zip(GRADIENTS, directions, averages, strict=True):
        d = g if m is None else jax.tree.map(lambda g, m: g - sigma * m, g, m)
        m = g if m is None else jax.tree.map(lambda g, m: decay * m + (1 - decay) * g, g, m)
        length = np.sqrt(np.sum(d['w'] ** 2) + d['b'] ** 2)
        family.assert_close(e, jax.tree.map(lambda leaf: 0.3 * leaf / length, d))  # noqa: B023
        family.assert_close(average, m, atol=1e-5)


def test_gradients_that_are_not_finite_do_not_enter_the_average_of_friendly_sam():
    bad = {'w': np.array([1.0, np.nan, 0]), 'b': np.array(1.0)}
    directions, averages = feed(optim.friendly_sam(), GRADIENTS)
    _, with_bad = feed(optim.friendly_sam(), [*GRADIENTS[:2], bad, *GRADIENTS[2:]])
    family.assert_close(with_bad[2], averages[1], atol=0)
    family.assert_close(with_bad[-1], averages[-1], atol=0)
    first_bad, with_bad = feed(optim.friendly_sam(), [bad, bad, *GRADIENTS])
    family.assert_close((first_bad[2:], with_bad[2:]), (directions, averages), atol=0)
    family.assert_close((first_bad[1], with_bad[1]), jax.tree.map(jnp.zeros_like, (averages[0], averages[0])), atol=0)


def test_the_mask_of_friendly_sam_does_not_apply_to_its_average():
    directions, averages = feed(optim.friendly_sam(0.3, mask={'w': False, 'b': True}), GRADIENTS)
    _, unmasked = feed(optim.friendly_sam(0.3), GRADIENTS)
    family.assert_close(averages, unmasked, atol=0)
    for e in directions:
        np.testing.assert_array_equal(e['w'], np.zeros(3))
        assert abs(float(e['b'])) == pytest.approx(0.3)


def random_ascend(seed=0, **options):
    return family.perturbation(optim.random_sam(0.4, seed=seed), problems.normalized(), **options)


def test_the_direction_of_random_sam_is_random_and_ignores_the_gradient():
    first, g = random_ascend(), problems.normalized().jitted[0](problems.normalized().params)
    assert textbook.norm(first) == pytest.approx(0.4, rel=1e-5)
    for scale in (-3.0, 0.0):
        np.testing.assert_array_equal(random_ascend(grads=jax.tree.map(lambda leaf: scale * leaf, g)), first)  # noqa: B023


def test_what_a_draw_of_random_sam_depends_on():
    changes = ({}, {'count': 1}, {'seed': 1}, {'group_index': 1}, {'group_index': 2})
    draws = [random_ascend(**change) for change in changes]
    np.testing.assert_array_equal(draws[0], random_ascend(count=0, seed=0, group_index=0))
    cosines = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(cosines).max() < 0.6  # for 30 weights


def test_arrays_of_the_same_shape_get_different_draws():
    tree = {'a': jnp.zeros(5), 'b': jnp.zeros(5)}
    drawn = random_trees.draw(tree, random_trees.key_of(0), lambda key, leaf: jax.random.normal(key, leaf.shape))
    assert not np.any(drawn['a'] == drawn['b'])


def test_directions_of_random_sam_are_isotropic():
    draws = np.array([random_ascend(count=count) for count in range(200)]) / 0.4
    size = draws.shape[1]
    assert np.abs(draws.mean(axis=0)).max() < 5 / np.sqrt(200 * size)
    np.testing.assert_allclose((draws**2).mean(axis=0), 1 / size, rtol=0.5)


def esam_ascend(seed=0, beta=0.5, **options):
    return family.perturbation(optim.esam(0.4, beta=beta, gamma=1, seed=seed), problems.convex(), **options)


def selection(gamma, increases):
    """The examples that are kept if the losses increase by `increases`."""
    seen, ones = [], jnp.ones(3)

    def gradient(params, *examples):
        seen.extend(examples)
        return ones

    def losses_fn(perturbed):
        return jnp.where(perturbed[0] == 1.0, 5.0, 5.0 + jnp.asarray(increases, jnp.float32))

    family.one_update(optim.esam(0.4, beta=1, gamma=gamma), ones, gradient, losses_fn=losses_fn)
    assert seen[0].dtype == jnp.int32
    return sorted(map(int, seen[0]))


@pytest.mark.parametrize(
    ('gamma', 'examples', 'kept'),
    [(0.5, 25, 13), (0.28, 25, 7), (2 / 3, 24, 16), (1 / 3, 24, 8), (0.99, 24, 24), (1e-9, 24, 1)],  # 0.28 * 25 > 7
)
def test_how_many_examples_esam_keeps(gamma, examples, kept):
    assert len(selection(gamma, np.zeros(examples))) == kept


def test_the_examples_whose_loss_increased_most_are_kept_and_among_equals_the_first():
    assert selection(0.5, [0.1, -3.0, 0.5, 0.4, 0.0, 0.3]) == [2, 3, 5]
    assert selection(0.5, [0.0] * 6) == [0, 1, 2]
    assert selection(0.5, [0.2, 0.1, 0.1, 0.1, 0.0, 0.1]) == [0, 1, 2]
    assert selection(0.5, [-1.0, -2.0, -3.0, -4.0]) == [0, 1]  # by signed increase, not by magnitude


def test_esam_perturbs_a_random_subset_and_the_mean_perturbation_is_that_of_sam():
    flat = textbook.Flat(problems.convex())
    sam = 0.4 * textbook.unit(flat.gradient(flat.start))
    draws = np.array([esam_ascend(beta=0.3, seed=seed) for seed in range(100)])
    np.testing.assert_allclose(draws, np.where(draws == 0, 0, sam / 0.3), atol=1e-6)
    share = np.mean(draws != 0, axis=0)
    assert np.all(np.abs(share - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 100))
    assert np.abs(share.mean() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / draws.size)
    np.testing.assert_allclose(esam_ascend(beta=1), sam, atol=1e-6)


def test_what_a_draw_of_esam_depends_on():
    first = esam_ascend()
    np.testing.assert_array_equal(first, esam_ascend(seed=0, count=0, group_index=0))
    others = [esam_ascend(seed=1), esam_ascend(count=1), esam_ascend(group_index=1)]
    assert len({tuple(draw != 0) for draw in (first, *others)}) == 4


def test_losses_given_to_esam_are_not_computed_again():
    gradient, losses = problems.convex().jitted
    calls, tx, params = [], optim.esam(0.4, gamma=0.3), problems.convex().params

    def counted(params):
        calls.append(params)
        return losses(params)

    _, without, _ = family.one_update(tx, params, gradient, losses_fn=counted)
    assert len(calls) == 2
    _, with_losses, _ = family.one_update(tx, params, gradient, losses_fn=counted, losses=losses(params))
    assert len(calls) == 3
    family.assert_close(with_losses, without, atol=0)
    # They are used: with the losses at the perturbed point itself none increases, and the first examples are kept.
    _, none_increases, _ = family.one_update(tx, params, gradient, losses_fn=counted, losses=losses(calls[-1]))
    family.assert_close(none_increases, gradient(calls[-1], jnp.arange(5)))


def test_esam_with_gamma_one_needs_neither_losses_nor_indices():
    def losses_fn(params):
        raise AssertionError

    def gradient(params):  # takes only the parameters
        return jax.tree.map(lambda w: 2 * w, params)

    perturbed, updates, _ = family.one_update(
        optim.esam(gamma=1), problems.convex().params, gradient, losses_fn=losses_fn
    )
    family.assert_close(updates, gradient(perturbed), atol=0)


def test_wrong_gradient_and_loss_functions_of_esam():
    gradient, losses = problems.convex().jitted
    for given in ({}, {'losses': losses(problems.convex().params)}):
        with pytest.raises(ValueError, match=r'esam with gamma below 1 needs the loss of each ex.* or set gamma=1'):
            family.one_update(optim.esam(), problems.convex().params, gradient, **given)
    message = r'losses_fn must return the loss of each example \[B\], got shapes \(\) at params and \(\) at the'
    with pytest.raises(ValueError, match=message):
        family.one_update(optim.esam(), problems.convex().params, gradient, losses_fn=problems.convex().loss)
    with pytest.raises(TypeError, match=r'grad_fn|argument'):  # it takes no indices
        family.one_update(optim.esam(), problems.convex().params, lambda params: params, losses_fn=losses)


def test_beta_of_esam_may_be_injected_and_gamma_may_not():
    problem, flat = problems.convex(), textbook.Flat(problems.convex())
    tx = optax.inject_hyperparams(optim.esam, static_args=('gamma', 'mask'))(0.4, beta=1.0, gamma=1)
    state = tx.init(problem.params)
    state.hyperparams['beta'] = jnp.float32(0.3)
    point, _, _ = family.one_update(tx, problem.params, problem.jitted[0], state=state)
    np.testing.assert_array_equal(flat.vector(point) - flat.start, esam_ascend(beta=0.3))
    with pytest.raises(TypeError, match=r"gamma determines shapes: wrap esam as .*static_args=\('gamma', 'mask'\)"):
        optax.inject_hyperparams(optim.esam, static_args='mask')(0.4).init(problem.params)


@pytest.mark.slow
def test_the_draws_of_esam_do_not_depend_on_where_the_parameters_lie():
    flat = textbook.Flat(problems.convex())
    params = sharding.place(
        problems.convex().params, sharding.of_state(problems.convex().params, sharding.data_mesh(), shard=True)
    )
    ones = jax.tree.map(jnp.ones_like, params)
    point, _, _ = family.one_update(optim.esam(0.4, gamma=1), params, lambda params: ones)
    drawn = flat.vector(point) != flat.start
    assert 0 < drawn.sum() < drawn.size
    np.testing.assert_array_equal(drawn, esam_ascend() != 0)

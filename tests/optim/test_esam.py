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


def ascend(params=None, **options):
    """The perturbation of one update of `convex`, as a vector."""
    group = {'group_index': options.pop('group_index')} if 'group_index' in options else {}
    count = options.pop('count', 0)
    problem = problems.convex()
    recorder = family.Recorder(problem)
    tx = optim.esam(**{'rho': 0.4, 'gamma': 1, **options})
    state = tx.init(problem.params)._replace(count=jnp.int32(count))
    tx.update(recorder.gradient(problem.params), state, problem.params, grad_fn=recorder, **group)
    flat = textbook.Flat(problem)
    return flat.vector(recorder.seen[0]) - flat.start


def selection(gamma, increases, **options):
    """The examples that are kept if the losses increase by `increases`."""
    seen = []
    params = jnp.ones(3)

    def grad_fn(params, examples):
        seen.append(examples)
        return jnp.ones(3)

    def losses_fn(perturbed):
        return jnp.where(perturbed[0] == 1.0, 5.0, 5.0 + jnp.asarray(increases, jnp.float32))

    tx = optim.esam(0.4, beta=1, gamma=gamma, **options)
    tx.update(jnp.ones(3), tx.init(params), params, grad_fn=grad_fn, losses_fn=losses_fn)
    assert seen[0].dtype == jnp.int32
    return [int(i) for i in seen[0]]


@pytest.mark.parametrize(
    ('gamma', 'examples', 'kept'),
    [(0.5, 25, 13), (0.28, 25, 7), (2 / 3, 24, 16), (1 / 3, 24, 8), (0.99, 24, 24), (1e-9, 24, 1)],  # 0.28 * 25 > 7
)
def test_how_many_examples_are_kept(gamma, examples, kept):
    assert len(selection(gamma, np.zeros(examples))) == kept


def test_the_examples_whose_loss_increased_most_are_kept_and_among_equals_the_first():
    assert sorted(selection(0.5, [0.1, -3.0, 0.5, 0.4, 0.0, 0.3])) == [2, 3, 5]
    assert sorted(selection(0.5, [0.0] * 6)) == [0, 1, 2]
    assert sorted(selection(0.5, [0.2, 0.1, 0.1, 0.1, 0.0, 0.1])) == [0, 1, 2]
    assert sorted(selection(0.5, [-1.0, -2.0, -3.0, -4.0])) == [0, 1]  # by signed increase, not by magnitude


def test_radius_zero_keeps_the_first_examples():
    problem = problems.convex()
    gradient, losses = problem.jitted
    tx = optim.esam(0.0, gamma=0.25)
    updates, _ = tx.update(
        gradient(problem.params), tx.init(problem.params), problem.params, grad_fn=gradient, losses_fn=losses
    )
    family.assert_close(updates, gradient(problem.params, jnp.arange(4)))


def test_a_random_subset_is_perturbed_and_the_mean_perturbation_is_that_of_sam():
    problem = problems.convex()
    flat = textbook.Flat(problem)
    sam = 0.4 * textbook.unit(flat.gradient(flat.start))
    draws = np.array([ascend(beta=0.3, seed=seed) for seed in range(100)])
    np.testing.assert_allclose(draws, np.where(draws == 0, 0, sam / 0.3), atol=1e-6)
    share = np.mean(draws != 0, axis=0)
    assert np.all(np.abs(share - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 100))
    assert np.abs(share.mean() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / draws.size)
    np.testing.assert_allclose(ascend(beta=1), sam, atol=1e-6)


def test_what_a_draw_depends_on():
    first = ascend(beta=0.5)
    np.testing.assert_array_equal(first, ascend(beta=0.5, seed=0, count=0, group_index=0))
    others = [ascend(beta=0.5, seed=1), ascend(beta=0.5, count=1), ascend(beta=0.5, group_index=1)]
    patterns = {tuple(draw != 0) for draw in (first, *others)}
    assert len(patterns) == 4


def test_given_losses_are_not_computed_again():
    problem = problems.convex()
    gradient, losses = problem.jitted
    calls = []

    def counted(params):
        calls.append(params)
        return losses(params)

    tx = optim.esam(0.4, gamma=0.3)
    arguments = {'grad_fn': gradient, 'losses_fn': counted}
    state, params = tx.init(problem.params), problem.params
    without, _ = tx.update(gradient(params), state, params, **arguments)
    assert len(calls) == 2
    with_losses, _ = tx.update(gradient(params), state, params, losses=losses(params), **arguments)
    assert len(calls) == 3
    family.assert_close(with_losses, without, atol=0)
    # They are used: with the losses at the perturbed point itself none increases, and the first examples are kept.
    none_increases, _ = tx.update(gradient(params), state, params, losses=losses(calls[-1]), **arguments)
    family.assert_close(none_increases, gradient(calls[-1], jnp.arange(5)))


def test_gamma_one_needs_neither_losses_nor_indices():
    problem = problems.convex()

    def losses_fn(params):
        raise AssertionError

    tx = optim.esam(gamma=1)
    seen = []

    def grad_fn(params):  # takes only the parameters
        seen.append(params)
        return jax.tree.map(lambda w: 2 * w, params)

    updates, _ = tx.update(
        problem.params, tx.init(problem.params), problem.params, grad_fn=grad_fn, losses_fn=losses_fn
    )
    (perturbed,) = seen
    family.assert_close(updates, jax.tree.map(lambda w: 2 * w, perturbed), atol=0)


def test_missing_losses():
    problem = problems.convex()
    gradient, losses = problem.jitted
    tx = optim.esam()
    for given in ({}, {'losses': losses(problem.params)}):
        with pytest.raises(
            ValueError, match=r'esam with gamma below 1 needs the loss of each example.* or set gamma=1'
        ):
            tx.update(gradient(problem.params), tx.init(problem.params), problem.params, grad_fn=gradient, **given)


def test_beta_may_be_injected_and_gamma_may_not():
    problem = problems.convex()
    gradient, losses = problem.jitted
    tx = optax.inject_hyperparams(optim.esam, static_args=('gamma', 'mask'))(0.4, beta=1.0, gamma=1)
    state = tx.init(problem.params)
    state.hyperparams['beta'] = jnp.float32(0.3)
    recorder = family.Recorder(problem)
    tx.update(gradient(problem.params), state, problem.params, grad_fn=recorder)
    flat = textbook.Flat(problem)
    np.testing.assert_array_equal(flat.vector(recorder.seen[0]) - flat.start, ascend(beta=0.3))
    with pytest.raises(TypeError, match=r"gamma determines shapes: wrap esam as .*static_args=\('gamma', 'mask'\)"):
        optax.inject_hyperparams(optim.esam, static_args='mask')(0.4).init(problem.params)
    with pytest.raises(TypeError, match=r'grad_fn|argument'):  # it takes no indices
        optim.esam().update(
            gradient(problem.params),
            optim.esam().init(problem.params),
            problem.params,
            grad_fn=lambda params: params,
            losses_fn=losses,
        )


def test_the_draws_do_not_depend_on_where_the_parameters_lie():
    mesh, problem = sharding.data_mesh(), problems.convex()
    params = sharding.place(problem.params, sharding.of_state(problem.params, mesh, shard=True))
    ones = jax.tree.map(jnp.ones_like, params)
    tx = optim.esam(0.4, gamma=1)
    perturbed = []

    def grad_fn(params):
        perturbed.append(params)
        return ones

    tx.update(ones, tx.init(params), params, grad_fn=grad_fn)
    flat = textbook.Flat(problem)
    drawn = flat.vector(perturbed[0]) != flat.start
    assert 0 < drawn.sum() < drawn.size
    np.testing.assert_array_equal(drawn, ascend(beta=0.5) != 0)

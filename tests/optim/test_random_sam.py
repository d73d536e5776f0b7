import family
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import textbook

from rfn_jax import optim
from rfn_jax.optim import random_trees


def ascend(*, count=0, scale=1.0, seed=0, **extra_args):
    """The perturbation of one update of `normalized`, as a vector."""
    problem = problems.normalized()
    recorder, flat, tx = family.Recorder(problem), textbook.Flat(problem), optim.random_sam(0.4, seed=seed)
    state = tx.init(problem.params)._replace(count=jnp.int32(count))
    g = flat.tree(scale * flat.gradient(flat.start))
    tx.update(g, state, problem.params, grad_fn=recorder, **extra_args)
    return flat.vector(recorder.seen[0]) - flat.start


def test_the_direction_is_random_and_ignores_the_gradient():
    first = ascend()
    assert textbook.norm(first) == pytest.approx(0.4, rel=1e-5)
    np.testing.assert_array_equal(ascend(scale=-3.0), first)
    np.testing.assert_array_equal(ascend(scale=0.0), first)


def test_what_a_draw_depends_on():
    draws = [ascend(), ascend(count=1), ascend(seed=1), ascend(group_index=1), ascend(group_index=2)]
    np.testing.assert_array_equal(draws[0], ascend(count=0, seed=0, group_index=0))
    cosines = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(cosines).max() < 0.6  # for 30 weights


def test_arrays_of_the_same_shape_get_different_draws():
    tree = {'a': jnp.zeros(5), 'b': jnp.zeros(5)}
    drawn = random_trees.draw(tree, (0,), lambda key, leaf: jax.random.normal(key, leaf.shape))
    assert not np.any(drawn['a'] == drawn['b'])


def test_directions_are_isotropic():
    draws = np.array([ascend(count=count) for count in range(200)]) / 0.4
    size = draws.shape[1]
    assert np.abs(draws.mean(axis=0)).max() < 5 / np.sqrt(200 * size)
    np.testing.assert_allclose((draws**2).mean(axis=0), 1 / size, rtol=0.5)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.optim import neighborhoods

ETA = 0.1
RNG = np.random.default_rng(0)
SHAPES = {'matrix': (4, 3), 'vector': (5,), 'scalar': ()}


def random_tree():
    return {name: np.asarray(RNG.normal(size=shape), np.float32) for name, shape in SHAPES.items()}


def norm(*arrays):
    return np.sqrt(sum(np.sum(np.asarray(x, np.float64) ** 2) for x in arrays))


# The norm of a perturbation e at weights w for which the neighborhood is the unit ball.
SIZES = {
    'global': lambda w, e: norm(*e.values()),
    'layer': lambda w, e: max(norm(leaf) for leaf in e.values()),
    'relative': lambda w, e: max(norm(e[name]) / norm(w[name]) for name in e),
    'scaled': lambda w, e: norm(*(e[name] / (np.abs(w[name]) + ETA) for name in e)),
}


def neighborhood(kind):
    return neighborhoods.scaled_ball(ETA) if kind == 'scaled' else neighborhoods.from_name(kind)


def inner(d, e):
    return sum(np.sum(np.asarray(d[name], np.float64) * np.asarray(e[name], np.float64)) for name in d)


@pytest.mark.parametrize('kind', SIZES)
def test_it_maximizes_a_linear_function(kind):
    for _ in range(5):
        w, d = random_tree(), random_tree()
        best = neighborhood(kind)(w, d)
        assert SIZES[kind](w, best) == pytest.approx(1, rel=1e-5)
        if kind in ('layer', 'relative'):  # every array is on the edge of its own ball
            assert all(SIZES[kind](w, {name: best[name]}) == pytest.approx(1, rel=1e-5) for name in best)
        others = [random_tree() for _ in range(200)]
        # And points near the best one, which are the hardest to beat.
        others += [{name: np.asarray(best[name]) + 0.05 * random_tree()[name] for name in best} for _ in range(200)]
        for other in others:
            size = SIZES[kind](w, other)
            feasible = {name: leaf / size for name, leaf in other.items()}
            assert inner(d, best) >= inner(d, feasible) - 1e-5


@pytest.mark.parametrize('kind', SIZES)
def test_a_zero_direction_gives_zero(kind):
    zeros = jax.tree.map(np.zeros_like, random_tree())
    jax.tree.map(np.testing.assert_array_equal, neighborhood(kind)(random_tree(), zeros), zeros)
    # One array with a zero gradient does not affect the others.
    w, d = random_tree(), random_tree()
    e = neighborhood(kind)(w, d | {'vector': zeros['vector']})
    np.testing.assert_array_equal(e['vector'], zeros['vector'])
    assert SIZES[kind](w, e) == pytest.approx(1, rel=1e-5)


def test_weights_of_zero():
    zeros, d = jax.tree.map(np.zeros_like, random_tree()), random_tree()
    jax.tree.map(np.testing.assert_array_equal, neighborhoods.from_name('relative')(zeros, d), zeros)
    jax.tree.map(np.testing.assert_array_equal, neighborhoods.scaled_ball(0.0)(zeros, d), zeros)
    assert norm(*neighborhoods.scaled_ball(ETA)(zeros, d).values()) == pytest.approx(ETA, rel=1e-5)


@pytest.mark.parametrize('kind', SIZES)
def test_over_the_float_range(kind):
    w, d = random_tree(), random_tree()
    expected = neighborhood(kind)(w, d)
    jitted = jax.jit(neighborhood(kind))
    for exponent in range(-36, 37, 6):
        found = jitted(w, jax.tree.map(lambda x: x * jnp.float32(10.0**exponent), d))  # noqa: B023
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), found, expected)


@pytest.mark.parametrize('kind', SIZES)
def test_low_precision_is_widened(kind):
    w, d = random_tree(), random_tree()
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (w, d))
    found = neighborhood(kind)(*narrow)
    expected = neighborhood(kind)(*jax.tree.map(lambda x: x.astype(jnp.float32), narrow))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (w, d))
        assert {leaf.dtype for leaf in jax.tree.leaves(neighborhood(kind)(*wide))} == {jnp.dtype(jnp.float64)}

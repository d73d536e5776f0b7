import family
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import optim

GRADIENTS = [{'w': np.array([1.0, -2.0, 0.5]) * t, 'b': np.array(0.3 - t)} for t in range(1, 6)]


def feed(tx, gradients):
    """The perturbations and the averages, for given gradients that do not depend on the parameters."""
    params, directions, averages = {'w': jnp.zeros(3), 'b': jnp.zeros(())}, [], []
    state = tx.init(params)
    for g in gradients:
        seen = []
        g = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), g)

        def grad_fn(params):
            seen.append(params)  # noqa: B023
            return params

        _, state = tx.update(g, state, params, grad_fn=grad_fn)
        directions.append(seen[0])
        averages.append(state.average)
    return directions, averages


@pytest.mark.parametrize('decay', [0.0, 0.7, 1.0])
@pytest.mark.parametrize('sigma', [0.0, 0.5, 1.0])
def test_the_average_and_the_direction(decay, sigma):
    directions, averages = feed(optim.friendly_sam(0.3, sigma=sigma, decay=decay), GRADIENTS)
    m = None
    for g, e, average in zip(GRADIENTS, directions, averages, strict=True):
        d = g if m is None else jax.tree.map(lambda g, m: g - sigma * m, g, m)
        m = g if m is None else jax.tree.map(lambda g, m: decay * m + (1 - decay) * g, g, m)
        length = np.sqrt(np.sum(d['w'] ** 2) + d['b'] ** 2)
        family.assert_close(e, jax.tree.map(lambda leaf: 0.3 * leaf / length, d))  # noqa: B023
        family.assert_close(average, m, atol=1e-5)


def test_gradients_that_are_not_finite_do_not_enter_the_average():
    bad = {'w': np.array([1.0, np.nan, 0]), 'b': np.array(1.0)}
    _, averages = feed(optim.friendly_sam(), GRADIENTS)
    _, with_bad = feed(optim.friendly_sam(), [*GRADIENTS[:2], bad, *GRADIENTS[2:]])
    family.assert_close(with_bad[2], averages[1], atol=0)
    family.assert_close(with_bad[-1], averages[-1], atol=0)
    directions, averages = feed(optim.friendly_sam(), GRADIENTS)
    first_bad, with_bad = feed(optim.friendly_sam(), [bad, bad, *GRADIENTS])
    family.assert_close((first_bad[2:], with_bad[2:]), (directions, averages), atol=0)
    family.assert_close((first_bad[1], with_bad[1]), jax.tree.map(jnp.zeros_like, (averages[0], averages[0])), atol=0)


def test_the_mask_does_not_apply_to_the_average():
    tx = optim.friendly_sam(0.3, mask={'w': False, 'b': True})
    directions, averages = feed(tx, GRADIENTS)
    _, unmasked = feed(optim.friendly_sam(0.3), GRADIENTS)
    family.assert_close(averages, unmasked, atol=0)
    for e in directions:
        np.testing.assert_array_equal(e['w'], np.zeros(3))
        assert abs(float(e['b'])) == pytest.approx(0.3)

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfn_jax import optim
from rfn_jax.core import errors


def merged(old, groups):
    changes = [optim.state_change(new, old) for new in groups]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(changes)} == {'float32'}
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *changes)
    return optim.merged_state(old, mean)


@pytest.mark.parametrize(
    ('dtype', 'old', 'groups', 'expected'),
    [
        (jnp.float32, 1.0, [2.0, 4.0], 3.0),
        (jnp.float32, [0.0, 2.0], [[1.0, 2.0], [3.0, 4.0]], [2.0, 3.0]),
        (jnp.bfloat16, [1.0], [[256], *[[1]] * 6, [2]], [33]),  # a sum in bfloat16 would stay at 256
        (jnp.int32, 5, [6, 6], 6),  # a counter increases if it increased in any group
        (jnp.int32, 5, [6, *[5] * 7], 6),
        (jnp.int32, 5, [5] * 8, 5),
        (jnp.int32, 5, [8, 8, 9], 8),
        (jnp.int32, 3, [0] * 6, 0),  # it may be reset, and is the rounded mean if groups disagree
        (jnp.int32, 131_072, [0] * 127, 0),
        (jnp.int32, 3, [0, 0, 4], 1),
        (bool, False, [True] * 3, True),  # true if it is true in all groups
        (bool, False, [True, True, False], False),
    ],
)
def test_the_merged_state_of_groups(dtype, old, groups, expected):
    old, *groups = ({'leaf': jnp.asarray(value, dtype)} for value in (old, *groups))
    found = merged(old, groups)['leaf']
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, jnp.asarray(expected, dtype))


def test_the_micro_step_counter_of_multisteps_is_reset():
    tx = optax.MultiSteps(optim.sam(0.1), 2)
    params, gradient = jnp.ones(3), jnp.arange(3.0)
    found = tx.init(params)
    for mini_step, gradient_step in ((1, 0), (0, 1), (1, 1)):
        _, new = tx.update(gradient, found, params, grad_fn=lambda params: params)
        found = merged(found, [new] * 4)
        jax.tree.map(np.testing.assert_array_equal, found, new)
        assert (int(found.mini_step), int(found.gradient_step)) == (mini_step, gradient_step)


@pytest.mark.parametrize(
    ('leaf', 'message'),
    [
        (jax.random.key(0), r"got key<fry>\[\] at \['rng'\]"),
        (jax.random.PRNGKey(0), r"got uint32\[2\] at \['rng'\]"),
        (jnp.uint32(1), r"got uint32\[\] at \['rng'\]"),
        (jnp.arange(3), r"got int32\[3\] at \['rng'\]"),
    ],
    ids=['key', 'key data', 'unsigned', 'array'],
)
def test_leaves_without_a_mean_are_rejected(leaf, message):
    with pytest.raises(errors.InputError, match=r'may only hold floats, booleans and counters .*' + message):
        optim.state_change({'rng': leaf}, {'rng': leaf})

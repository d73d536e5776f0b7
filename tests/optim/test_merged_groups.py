from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfn_jax import optim
from rfn_jax.core import errors


class State(NamedTuple):
    count: jax.Array
    norm: jax.Array
    found: jax.Array
    average: dict


def state(count, norm, found, average):
    return State(jnp.int32(count), jnp.float32(norm), jnp.asarray(found), {'w': jnp.asarray(average, jnp.float32)})


def merged(old, groups):
    changes = [optim.state_change(new, old) for new in groups]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(changes)} == {'float32'}
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *changes)
    return optim.merged_state(old, mean)


def test_floats_are_means_and_types_stay():
    old = state(5, 1.0, True, [0.0, 2.0])
    found = merged(old, [state(6, 2.0, True, [1.0, 2.0]), state(6, 4.0, True, [3.0, 4.0])])
    assert jax.tree.map(lambda leaf: leaf.dtype, found) == jax.tree.map(lambda leaf: leaf.dtype, old)
    assert float(found.norm) == 3.0
    np.testing.assert_array_equal(found.average['w'], [2.0, 3.0])
    assert int(found.count) == 6


def test_a_counter_increases_if_it_increased_in_any_group():
    old = state(5, 1.0, True, [0.0])
    assert int(merged(old, [old._replace(count=jnp.int32(6)), *[old] * 7]).count) == 6
    assert int(merged(old, [old] * 8).count) == 5
    assert int(merged(old, [old._replace(count=jnp.int32(n)) for n in (8, 8, 9)]).count) == 8


def test_a_boolean_is_true_if_it_is_true_in_all_groups():
    old = state(5, 1.0, False, [0.0])
    yes, no = old._replace(found=jnp.asarray(True)), old
    assert bool(merged(old, [yes] * 3).found)
    assert not bool(merged(old, [yes, yes, no]).found)


@pytest.mark.parametrize(('start', 'ends', 'expected'), [(3, [0] * 6, 0), (131_072, [0] * 127, 0), (3, [0, 0, 4], 1)])
def test_a_counter_may_be_reset_and_is_the_rounded_mean_if_groups_disagree(start, ends, expected):
    old = state(start, 1.0, True, [0.0])
    found = merged(old, [old._replace(count=jnp.int32(end)) for end in ends])
    assert (int(found.count), found.count.dtype) == (expected, jnp.int32)


def test_the_micro_step_counter_of_multisteps_is_reset():
    tx = optax.MultiSteps(optim.sam(0.1), 2)
    params, gradient = jnp.ones(3), jnp.arange(3.0)
    found = tx.init(params)
    for mini_step, gradient_step in ((1, 0), (0, 1), (1, 1)):
        _, new = tx.update(gradient, found, params, grad_fn=lambda params: params)
        found = merged(found, [new] * 4)
        jax.tree.map(np.testing.assert_array_equal, found, new)
        assert (int(found.mini_step), int(found.gradient_step)) == (mini_step, gradient_step)


def test_narrow_floats_are_averaged_in_float32_and_keep_their_type():
    old = {'w': jnp.asarray([1.0], jnp.bfloat16)}
    found = merged(old, [{'w': jnp.asarray([value], jnp.bfloat16)} for value in (256, 1, 1, 1, 1, 1, 1, 2)])
    assert found['w'].dtype == jnp.bfloat16
    assert float(found['w'][0]) == 33  # a sum in bfloat16 would stay at 256


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

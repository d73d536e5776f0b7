from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax import optim


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


def test_a_counter_that_grew_in_one_group_has_grown_and_one_that_did_not_has_not():
    old = state(5, 1.0, True, [0.0])
    assert int(merged(old, [old._replace(count=jnp.int32(6)), *[old] * 7]).count) == 6
    assert int(merged(old, [old] * 8).count) == 5
    assert int(merged(old, [old._replace(count=jnp.int32(n)) for n in (8, 8, 9)]).count) == 8


def test_a_flag_holds_if_it_holds_in_all_groups():
    old = state(5, 1.0, False, [0.0])
    yes, no = old._replace(found=jnp.asarray(True)), old
    assert bool(merged(old, [yes] * 3).found)
    assert not bool(merged(old, [yes, yes, no]).found)

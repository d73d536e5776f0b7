import hashlib

import jax
import numpy as np
import pytest

from rfn_jax.core import rng


def data(keys):
    return np.asarray(jax.random.key_data(keys)).tolist()


def test_golden_values():
    # Runs are compared across versions of this library, so these values must not change.
    assert data(rng.key_for(0, 'initialise')) == [2302062927, 4214736686]
    assert data(rng.key_for(7, 'augment', 3, 2)) == [1150088862, 1128831336]
    assert rng.seed_for(0, 'resnet18/sgd') == 1417093269
    assert data(rng.example_keys(rng.key_for(0, 'craft'), [0, 1, 2**32 - 1])) == [
        [3665862789, 898345003],
        [522661464, 1656712704],
        [1695536807, 1511996109],
    ]


def test_the_purpose_enters_by_its_hash_and_the_indices_one_after_another():
    purpose = int(hashlib.sha256(b'augment').hexdigest()[:8], 16)
    key = jax.random.key(7)
    for number in (purpose, 3, 2):
        key = jax.random.fold_in(key, number)
    assert data(rng.key_for(7, 'augment', 3, 2)) == data(key)


def test_every_seed_purpose_and_index_has_its_own_key():
    keys = [
        rng.key_for(seed, purpose, *indices)
        for seed in (0, 1)
        for purpose in ('initialize', 'shuffle', 'augment')
        for indices in ((), (0,), (1,), (0, 1), (1, 0))
    ]
    assert len({tuple(data(key)) for key in keys}) == len(keys)


def test_seeds_differ_by_purpose_and_fit_in_31_bits():
    seeds = {rng.seed_for(seed, purpose) for seed in range(10) for purpose in ('a', 'b', 'c')}
    assert len(seeds) == 30
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert max(seeds) > 2**30  # and uses all of them


@pytest.mark.parametrize('dtype', [np.int32, np.int64, np.uint32])
def test_example_keys_do_not_depend_on_the_batch_or_on_jit(dtype):
    key = rng.key_for(0, 'craft')
    ids = np.array([5, 0, 49_999, 17], dtype)
    together = data(rng.example_keys(key, ids))
    alone = [data(rng.example_keys(key, ids[i : i + 1]))[0] for i in range(4)]
    backwards = data(rng.example_keys(key, ids[::-1]))[::-1]
    assert together == alone == backwards == data(jax.jit(rng.example_keys)(key, ids))
    assert len({tuple(k) for k in together}) == 4

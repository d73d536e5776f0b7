import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.core import digests, errors


def tree():
    return {'w': np.arange(6, dtype=np.float32).reshape(2, 3), 'b': [np.zeros((), np.int32)]}


def test_array_digest_is_the_same_for_the_same_arrays():
    digest = digests.of_arrays(tree())
    assert len(digest) == 64
    assert digest == digests.of_arrays({name: tree()[name] for name in ('b', 'w')})  # regardless of the order
    for stored in (jnp.asarray, np.asfortranarray):  # and of where and how they are stored
        assert digest == digests.of_arrays(tree() | {'w': stored(tree()['w'])})


@pytest.mark.parametrize(
    'change',
    [
        lambda t: t['w'].__setitem__((1, 2), np.nextafter(np.float32(5), np.float32(6))),
        lambda t: t['b'][0].__setitem__((), 1),
        lambda t: t.__setitem__('v', t.pop('w')),
        lambda t: t.__setitem__('w', t['w'].view(np.int32)),
        lambda t: t.__setitem__('w', t['w'].reshape(3, 2)),
        lambda t: t.__setitem__('w', t['w'].T),
        lambda t: t.__setitem__('b', t['b'] * 2),
        lambda t: t['b'].__setitem__(0, t['b'][0].reshape(1)),
    ],
    ids=['value', 'scalar', 'name', 'dtype', 'shape', 'transpose', 'leaves', 'rank'],
)
def test_array_digest_changes_with(change):
    changed = tree()
    change(changed)
    assert digests.of_arrays(changed) != digests.of_arrays(tree())


def test_the_hash_of_a_file_is_that_of_its_contents(tmp_path):
    content = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / 'f').write_bytes(content)
    assert digests.of_file(tmp_path / 'f') == hashlib.sha256(content).hexdigest()
    for path, reason in ((tmp_path / 'absent', 'No such file'), (tmp_path, 'directory')):
        with pytest.raises(errors.InputError, match=reason):
            digests.of_file(path)


def test_the_hash_of_plain_values_ignores_the_order_of_keys():
    assert digests.of_plain({'a': 1, 'b': [2.5, None]}) == digests.of_plain({'b': [2.5, None], 'a': 1})
    assert digests.of_plain({'a': 1}) != digests.of_plain({'a': 2})

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfn_jax
from rfn_jax.core import environment, numerics, sharding


@pytest.fixture
def mesh():
    assert jax.device_count() == 8, 'tests/conftest.py asks for eight virtual devices'
    return sharding.data_mesh()


def test_the_mesh_is_over_all_devices(mesh):
    assert mesh.shape == {'data': 8, 'fsdp': 1}
    assert mesh.devices.ravel().tolist() == jax.devices()
    assert sharding.data_mesh(fsdp=2).devices.tolist() == np.reshape(jax.devices(), (4, 2)).tolist()
    assert sharding.data_mesh(jax.devices()[:2]).size == 2


def test_replicate_puts_everything_on_every_device(mesh):
    tree = {'w': np.arange(6.0, dtype=np.float32), 'n': jnp.int32(3), 'h': jnp.ones(2, jnp.bfloat16)}
    copy = sharding.replicate(tree, mesh)
    for name, leaf in copy.items():
        assert leaf.dtype == tree[name].dtype
        assert len(leaf.addressable_shards) == 8
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, tree[name])


def test_small_arrays_stay_whole(mesh, monkeypatch):
    monkeypatch.setattr(sharding, 'SMALLEST_SHARDED', numerics.SMALL)
    tree = {
        'norm': jax.ShapeDtypeStruct((numerics.SMALL // 16, 8), 'f4'),
        'conv': jax.ShapeDtypeStruct((numerics.SMALL // 8, 8), 'f4'),
    }
    found = sharding.of_state(tree, mesh, shard=True)
    assert (found['norm'].is_fully_replicated, found['conv'].is_fully_replicated) == (True, False)


@pytest.mark.parametrize('count', [1, 8])
@pytest.mark.parametrize('kind', ['numpy', 'jax', 'replicated'])
def test_donating_the_result_leaves_the_original(count, kind):
    mesh = sharding.data_mesh(jax.devices()[:count])
    original = np.arange(4096, dtype=np.float32)  # large enough that jax.device_put would alias it
    if kind != 'numpy':
        original = jnp.asarray(original)
    if kind == 'replicated':
        original = sharding.replicate(original, mesh)
    step = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    copy, later = sharding.replicate(original, mesh), sharding.replicate(original, mesh)
    result = step(copy)
    assert copy.is_deleted()  # it was indeed donated
    np.testing.assert_array_equal(result, -np.ones(4096))
    np.testing.assert_array_equal(original, np.arange(4096))
    if kind == 'numpy':
        original[:] = 1  # does not change a copy, either
    np.testing.assert_array_equal(later, np.arange(4096))


def test_a_batch_is_sharded_in_order(mesh):
    batch = {'image': np.arange(16 * 3, dtype=np.float32).reshape(16, 3), 'label': np.arange(16)}
    sharded = sharding.shard_batch(batch, mesh)
    for shard in sharded['image'].addressable_shards:
        first = mesh.devices.ravel().tolist().index(shard.device) * 2
        np.testing.assert_array_equal(shard.data, batch['image'][first : first + 2])
    np.testing.assert_array_equal(sharded['label'], batch['label'])
    assert sharded['label'].sharding == sharding.batch_sharding(mesh)


def test_an_uneven_batch_is_refused(mesh):
    with pytest.raises(ValueError, match=r'a batch of \[12\] examples does not divide evenly over 8 devices'):
        sharding.shard_batch({'image': np.zeros((12, 3))}, mesh)


def test_the_environment_names_versions_and_devices_in_plain_values():
    found = environment.describe(sharding.data_mesh(jax.devices()[:2]))
    assert found['devices'] == '2 x cpu'
    assert found['jax'] == jax.__version__
    assert json.loads(json.dumps(found)) == found
    assert found['rfn_jax'] == rfn_jax.__version__

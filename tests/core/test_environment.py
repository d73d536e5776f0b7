import json

import jax

import rfn_jax
from rfn_jax.core import environment, sharding


def test_it_names_versions_and_devices_in_plain_values():
    found = environment.describe(sharding.data_mesh(jax.devices()[:2]))
    assert found['devices'] == '2 x cpu'
    assert found['jax'] == jax.__version__
    assert json.loads(json.dumps(found)) == found
    assert found['rfn_jax'] == rfn_jax.__version__

import json

import jax

from rfn_jax.core import environment, sharding


def test_it_names_versions_and_devices_in_plain_values(monkeypatch):
    found = environment.describe(sharding.data_mesh(jax.devices()[:2]))
    assert found['devices'] == '2 x cpu'
    assert found['jax'] == jax.__version__
    assert json.loads(json.dumps(found)) == found
    monkeypatch.setattr(environment, 'PACKAGES', ('a_package_that_is_not_there',))
    assert environment.describe(sharding.data_mesh())['a_package_that_is_not_there'] == 'not installed'

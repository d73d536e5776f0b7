import json

import jax.numpy as jnp
import numpy as np
import pieces
import safetensors
from safetensors.flax import load_file

from rfn_jax import models, storage
from rfn_jax.core import rng


def test_pieces_hold_everything_in_order_and_respect_the_limit():
    sizes = {'a': 6, 'b': 4, 'c': 5, 'd': 20, 'e': 1}
    arrays = {name: jnp.zeros(size, jnp.bfloat16) for name, size in sizes.items()}
    assert [list(piece) for piece in pieces.pieces(arrays, 20)] == [['a', 'b'], ['c'], ['d'], ['e']]


def test_the_files_hold_the_weights_in_bfloat16_and_say_what_they_are(tmp_path, monkeypatch):
    spec = {'name': 'mlp', 'widths': [30, 20]}
    module = models.from_spec(spec, num_classes=10)
    classifier = models.initialize(module, rng.key_for(0, 'test'), (4, 4, 1), num_classes=10)
    storage.save_network(tmp_path / 'network', classifier, architecture=spec, image_shape=(4, 4, 1))
    monkeypatch.setattr(pieces, 'MAX_BYTES', 1100)
    pieces.main(str(tmp_path / 'network'), str(tmp_path / 'out'))
    files = sorted(tmp_path.glob('out.*.safetensors'))
    assert len(files) > 1
    found = {name: array for path in files for name, array in load_file(path).items()}
    kernel = classifier.variables['params']['fc1']['kernel']
    np.testing.assert_array_equal(found['params.fc1.kernel'], kernel.astype(jnp.bfloat16))
    assert {array.dtype.name for array in found.values()} == {'bfloat16'}
    with safetensors.safe_open(files[0], 'np') as file:
        assert json.loads(file.metadata()['rfn_jax'])['architecture'] == spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.core import errors
from rfn_jax.models.families import mlp


@pytest.mark.parametrize('widths', [(4, 3), ()])
def test_the_network_equals_the_textbook(widths):
    module = mlp.mlp(5, widths=widths)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 3, 4, 2)).astype(np.float32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 3, 4, 2)), train=False))
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.9, leaf.shape).astype(np.float32), shapes)
    p, s = variables['params'], variables.get('batch_stats', {})
    x = np.float64(images).reshape(2, -1)
    for i in range(1, len(widths) + 1):
        x = x @ p[f'fc{i}']['kernel'] + p[f'fc{i}']['bias']
        x = (x - s[f'bn{i}']['mean']) / np.sqrt(s[f'bn{i}']['var'] + 1e-5) * p[f'bn{i}']['scale'] + p[f'bn{i}']['bias']
        x = np.maximum(x, 0)
    expected = x @ p['fc']['kernel'] + p['fc']['bias']
    np.testing.assert_allclose(module.apply(variables, images, train=False), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('widths', 'place', 'value'), [((8, 0), 1, 0), ((-1,), 0, -1), ((8, 2.0), 1, 2.0)])
def test_bad_widths(widths, place, value):
    with pytest.raises(errors.InputError, match=rf'widths\[{place}\] must be an integer of at least 1, got {value}'):
        mlp.mlp(5, widths=widths)

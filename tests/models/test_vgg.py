import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import vgg


def network(variables, x, stages):
    """VGG with batch normalisation in NumPy, float64."""
    p, s = variables['params'], variables['batch_stats']
    x = np.float64(x)
    for stage, widths in enumerate(stages, start=1):
        for index in range(len(widths)):
            name = f'{stage}_{index}'
            x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
            x = np.einsum('nijcab,abcd->nijd', windows, p[f'conv{name}']['kernel']) + p[f'conv{name}']['bias']
            stats, affine = s[f'bn{name}'], p[f'bn{name}']
            x = (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5) * affine['scale'] + affine['bias']
            x = np.maximum(x, 0)
        n, h, w, c = x.shape
        x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
    return x.mean(axis=(1, 2)) @ p['fc']['kernel'] + p['fc']['bias']


@pytest.mark.parametrize('size', [8, 9])
def test_the_network_equals_the_textbook(size):
    stages = ((3, 4), (5,))
    module = vgg.vgg(6, stages=stages)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, size, size, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.9, leaf.shape).astype(np.float32) - 0.05, shapes)
    logits = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, x)
    np.testing.assert_allclose(logits, network(variables, x, stages), rtol=1e-4)


@pytest.mark.parametrize('size', [31, 16, 1])
def test_an_image_that_is_too_small_is_refused(size):
    module = models.MODELS.make('vgg13', num_classes=10)
    with pytest.raises(errors.InputError, match=rf'{size} x 32 pixels .* 32'):
        models.abstract(module, (size, 32, 3), num_classes=10)


@pytest.mark.parametrize('stages', [(), ((4,), ()), ((4, 0),), ((-1,),)])
def test_bad_stages(stages):
    with pytest.raises(errors.InputError, match='stages of a VGG need at least one positive width each, got') as raised:
        vgg.vgg(10, stages=stages)
    assert repr(stages) in str(raised.value)

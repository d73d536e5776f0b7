import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np


def test_the_example_of_the_readme_runs():
    readme = (pathlib.Path(__file__).parents[1] / 'README.md').read_text()
    (code,) = re.findall(r'```python\n(.*?)```', readme, re.DOTALL)
    images, labels = jax.random.uniform(jax.random.key(1), (3, 2, 2, 1)), jnp.array([0, 1, 2])

    def apply_fn(params, images):
        return images.reshape(len(images), -1) @ params

    def loss_fn(params):
        return -jnp.mean(jax.nn.log_softmax(apply_fn(params, images))[jnp.arange(3), labels])

    before = jax.random.normal(jax.random.key(2), (4, 3))
    names = {'params': before, 'loss_fn': loss_fn, 'apply_fn': apply_fn, 'images': images, 'labels': labels}
    exec(code, names)
    assert loss_fn(names['params']) < loss_fn(before)
    np.testing.assert_allclose(np.max(np.abs(names['adversarial'] - images)), 4 / 255, atol=1e-6)

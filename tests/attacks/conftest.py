"""One small attack problem for all tests of attacks.

The network has smooth activations and gradients far from zero, so that their signs do not depend on rounding.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.core import losses, rng


@pytest.fixture(scope='module', autouse=True)
def fast_compilation():
    """The tests compile a hundred small programs that each run once; optimizing them would take most of the time."""
    before = jax.config.read('jax_disable_most_optimizations')
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', before)


class Problem(NamedTuple):
    """Two checkpoints of one architecture, and labeled images `[B, H, W, C]` with keys."""

    variables: dict
    other_variables: dict
    images: np.ndarray
    labels: np.ndarray
    keys: jax.Array

    @staticmethod
    def apply(variables, images):
        """Logits `[B, 5]` of images `[B, 6, 6, 3]`: two convolutions with tanh, and a dense layer."""
        x = images - 0.5
        for name, stride in (('first', 1), ('second', 2)):
            layout = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC')}
            x = jnp.tanh(jax.lax.conv_general_dilated(x, variables[name], (stride, stride), 'VALID', **layout))
        return x.reshape(len(x), -1) @ variables['dense']

    @property
    def surrogate(self):
        return jax.tree_util.Partial(self.apply, self.variables)

    @property
    def other_surrogate(self):
        return jax.tree_util.Partial(self.apply, self.other_variables)

    @property
    def arguments(self):
        return self.surrogate, self.images, self.labels, self.keys


def conv_variables(seed):
    generator = np.random.default_rng(seed)
    shapes = {'first': (3, 3, 3, 4), 'second': (2, 2, 4, 6), 'dense': (24, 5)}
    return {
        name: jnp.asarray(generator.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), jnp.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope='session')
def problem():
    generator = np.random.default_rng(3)
    images = generator.uniform(size=(14, 6, 6, 3)).astype(np.float32)
    images[0, :2], images[0, 2:4] = 0.0, 1.0  # values at the bounds of [0, 1], where clipping acts
    labels = generator.integers(5, size=14).astype(np.int32)
    keys = rng.example_keys(jax.random.key(7), generator.permutation(1000)[:14])
    return Problem(conv_variables(0), conv_variables(1), images, labels, keys)


@pytest.fixture(scope='module')
def loss_and_gradient(problem):
    """The loss of one image and its gradient, in float64 for textbooks."""
    function = jax.jit(jax.value_and_grad(lambda x, y: losses.cross_entropy(problem.surrogate(x[None]), y[None])[0]))

    def at(x, y):
        loss, gradient = function(x.astype(np.float32), y)
        return float(loss), np.asarray(gradient, np.float64)

    return at

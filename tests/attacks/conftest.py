"""One small attack problem for all tests of attacks.

The network has smooth activations and gradients far from zero, so that their signs do not depend on rounding.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.core import losses


@pytest.fixture(scope='module', autouse=True)
def fast_compilation():
    """The tests compile a hundred small programs that each run once; optimizing them would take most of the time."""
    before = jax.config.read('jax_disable_most_optimizations')
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', before)


class Problem(NamedTuple):
    """Two checkpoints of one architecture, and labeled images `[B, H, W, C]` with ids.

    Whenever Python runs `apply`, which means that something is traced, the shape of the images is added to `traces`.
    """

    apply: Callable
    traces: list
    variables: dict
    other_variables: dict
    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray

    @property
    def surrogate(self):
        return jax.tree_util.Partial(self.apply, self.variables)


def conv_logits(variables, images):
    """Logits `[B, 5]` of images `[B, 6, 6, 3]`: two convolutions with tanh, and a dense layer."""
    x = images - 0.5
    for name, stride in (('first', 1), ('second', 2)):
        x = jax.lax.conv_general_dilated(
            x, variables[name], (stride, stride), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )
        x = jnp.tanh(x)
    return x.reshape(len(x), -1) @ variables['dense']


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
    ids = generator.permutation(1000)[:14]
    traces = []

    def apply(variables, images):
        traces.append(images.shape)
        return conv_logits(variables, images)

    return Problem(apply, traces, conv_variables(0), conv_variables(1), images, labels, ids)


@pytest.fixture(scope='module')
def gradient_at(problem):
    gradient = jax.jit(jax.grad(lambda x, y: losses.cross_entropy(problem.surrogate(x[None]), y[None])[0]))
    return lambda x, y: np.asarray(gradient(x.astype(np.float32), y), np.float64)


@pytest.fixture(scope='module')
def arguments(problem):
    return problem.surrogate, problem.images[:4], problem.labels[:4], jax.random.split(jax.random.key(5), 4)

"""Two small problems for all tests of minimizers, each with a batch of B = 16 examples.

Parameters have their Flax names. No loss is invariant to a whole array of parameters, since its gradient would then be mere
rounding error.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

B = 16
CLASSES = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """Initial parameters and the losses of a batch."""

    params: dict
    batch: tuple[jax.Array, jax.Array]  # inputs [B, ...] and labels [B]
    losses_on: Callable[..., jax.Array]  # maps parameters, inputs and labels to losses [B]

    def on(self, examples):
        """The same problem with only some examples of the batch."""
        return dataclasses.replace(self, batch=tuple(part[examples] for part in self.batch))

    def losses(self, params):
        return self.losses_on(params, *self.batch)

    def loss(self, params):
        return jnp.mean(self.losses(params))

    def grad_fn(self, params, examples=None):
        """The gradient of the mean loss of the batch, or of some of its examples as a batch of their own."""
        return jax.grad((self if examples is None else self.on(examples)).loss)(params)

    @functools.cached_property
    def jitted(self):
        """`grad_fn` and `losses`, each compiled once for all tests."""
        return jax.jit(self.grad_fn), jax.jit(self.losses)


def _arrays(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


@functools.cache
def convex():
    """Logistic regression with weight decay: L_i = log(1 + exp(-y_i (x_i k + b))) + 0.05 (|k|^2 + b^2)."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(B, 8))
    y = np.where(x @ rng.normal(size=8) + rng.normal(size=B) > 0, 1, -1)

    def losses(params, x, y):
        z = x @ params['kernel'] + params['bias']
        return jnp.logaddexp(0, -y * z) + 0.05 * (jnp.sum(params['kernel'] ** 2) + params['bias'] ** 2)

    return Problem(_arrays({'kernel': rng.normal(size=8), 'bias': 0.3}), (*_arrays((x, y)),), losses)


@functools.cache
def normalized():
    """A linear layer, batch normalization with the statistics of the batch, and cross-entropy."""
    rng = np.random.default_rng(2)
    x, labels = rng.normal(size=(B, 8)), rng.integers(CLASSES, size=B)
    params = {
        'dense': {'kernel': rng.normal(size=(8, CLASSES))},
        'norm': {'scale': rng.normal(1, 0.3, size=CLASSES), 'bias': rng.normal(size=CLASSES) / 2},
    }

    def losses(params, x, labels):
        z = x @ params['dense']['kernel']
        z = (z - z.mean(axis=0)) / jnp.sqrt(z.var(axis=0) + 1e-3)
        logits = z * params['norm']['scale'] + params['norm']['bias']
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    return Problem(_arrays(params), (_arrays(x), jnp.asarray(labels)), losses)


PROBLEMS = {problem.__name__: problem for problem in (convex, normalized)}

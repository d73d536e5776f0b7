"""Losses per example, as training and attacks use them.

Axes: `B` examples, `K` classes.
"""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    r"""Cross-entropy of each example, in float32: :math:`-\log softmax(z)_y`.

    Args:
      logits: Array `[B, K]`.
      labels: Integers `[B]` in `[0, K)`.

    Returns:
      Array `[B]`, float32.
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)

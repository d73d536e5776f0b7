"""Losses per example, for training and attacks; attacks increase them, and targeted attacks decrease them.

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
    loss: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
    return loss


def margin(logits: jax.Array, labels: jax.Array) -> jax.Array:
    r"""How far the highest other logit is above the true one: :math:`\max_{k \neq y} z_k - z_y` (Carlini and Wagner).

    Args:
      logits: Array `[B, K]`, K at least 2.
      labels: Integers `[B]` in `[0, K)`.

    Returns:
      Array `[B]`, float32; above 0 where the example is misclassified.
    """
    logits = logits.astype(jnp.float32)
    is_true = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return jnp.max(jnp.where(is_true, -jnp.inf, logits), axis=-1) + negative_logit(logits, labels)


def negative_logit(logits: jax.Array, labels: jax.Array) -> jax.Array:
    r"""Negative logit of the true class, :math:`-z_y`: a targeted logit attack decreases it for its target.

    Source: Zhao et al., `On Success and Simplicity <https://arxiv.org/abs/2012.11207>`_, 2021.

    Args:
      logits: Array `[B, K]`.
      labels: Integers `[B]` in `[0, K)`.

    Returns:
      Array `[B]`, float32.
    """
    logits = logits.astype(jnp.float32)
    return -jnp.take_along_axis(logits, labels[:, None].astype(jnp.int32), axis=-1)[:, 0]

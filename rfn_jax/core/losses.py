"""Losses per example, for training and attacks; attacks increase them, and targeted attacks decrease them.

Axes: `B` examples, `K` classes.
"""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0) -> jax.Array:
    r"""Cross-entropy of each example, in float32: :math:`-\sum_k p_k \log softmax(z)_k`.

    For an integer label y, :math:`p` is 1 for the class y and 0 for the others, and this is :math:`-\log softmax(z)_y`.
    Label smoothing replaces :math:`p_k` by :math:`(1 - s) p_k + s / K`.

    Args:
      logits: Array `[B, K]`.
      labels: Integers `[B]` in `[0, K)`, or probabilities `[B, K]`.
      label_smoothing: s, in `[0, 1)`.

    Returns:
      Array `[B]`, float32.

    References:
      Szegedy et al., `Rethinking the Inception Architecture for Computer Vision <https://arxiv.org/abs/1512.00567>`_, 2015.
    """
    logits = logits.astype(jnp.float32)
    are_integers = labels.ndim < logits.ndim
    loss: jax.Array
    if are_integers and not label_smoothing:
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return loss
    probabilities = jax.nn.one_hot(labels, logits.shape[-1]) if are_integers else labels.astype(jnp.float32)
    loss = optax.softmax_cross_entropy(logits, optax.smooth_labels(probabilities, label_smoothing))
    return loss


def most_likely(labels: jax.Array) -> jax.Array:
    """The class of each example: that of the largest probability, the lowest one among equal ones.

    Args:
      labels: Integers `[B]`, which are returned as they are, or probabilities `[B, K]`.

    Returns:
      Integers `[B]`.
    """
    return labels if labels.ndim == 1 else jnp.argmax(labels, axis=-1)


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

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.core import losses


def textbook(logits, labels):
    z = np.asarray(logits, np.float64)
    return [-(row[y] - row.max() - np.log(np.sum(np.exp(row - row.max())))) for row, y in zip(z, labels, strict=True)]


@pytest.mark.parametrize('scale', [1e-3, 1.0, 30.0, 1e4, 1e30])
def test_cross_entropy_equals_the_textbook(scale):
    logits = np.random.default_rng(0).normal(size=(6, 10)) * scale
    labels = np.arange(6)
    loss = losses.cross_entropy(jnp.asarray(logits, jnp.float32), labels)
    np.testing.assert_allclose(loss, textbook(logits.astype(np.float32), labels), rtol=1e-5, atol=1e-5)


def test_cross_entropy_of_bfloat16_logits_is_computed_in_float32():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 10)), jnp.bfloat16)
    loss = losses.cross_entropy(logits, jnp.arange(4))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, textbook(logits, np.arange(4)), rtol=1e-6)


def test_gradient_is_softmax_minus_one_hot():
    logits = np.random.default_rng(0).normal(size=(3, 5))
    labels = np.array([4, 0, 2])
    gradient = jax.grad(lambda z: losses.cross_entropy(z, labels).sum())(jnp.asarray(logits, jnp.float32))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, softmax - np.eye(5)[labels], atol=1e-6)

"""Cross-entropy with probabilities as labels, and with label smoothing, against optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfn_jax.core import losses

LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)) * 3, jnp.float32)
LABELS = np.array([0, 1, 2, 3, 3, 0], np.int32)
SOFT = jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(4), 6), jnp.float32)


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.5])
def test_equals_optax(smoothing):
    for labels, probabilities in ((LABELS, jax.nn.one_hot(LABELS, 4)), (SOFT, SOFT)):
        found = losses.cross_entropy(LOGITS, labels, label_smoothing=smoothing)
        expected = optax.softmax_cross_entropy(LOGITS, optax.smooth_labels(probabilities, smoothing))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert found.dtype == jnp.float32


def test_one_smoothed_example_by_hand():
    found = losses.cross_entropy(LOGITS[:1], LABELS[:1], label_smoothing=0.2)
    z = np.asarray(LOGITS[0], np.float64)
    log_softmax = z - np.log(np.exp(z).sum())
    np.testing.assert_allclose(found, [-(0.85 * log_softmax[0] + 0.05 * log_softmax[1:].sum())], rtol=1e-6)


def test_integer_labels_without_smoothing_are_computed_as_before():
    text = str(jax.make_jaxpr(losses.cross_entropy)(LOGITS, LABELS))
    plain = str(jax.make_jaxpr(optax.softmax_cross_entropy_with_integer_labels)(LOGITS, LABELS))
    assert text == plain


def test_the_class_of_a_label_is_the_one_with_the_largest_weight():
    np.testing.assert_array_equal(losses.most_likely(jnp.asarray(LABELS)), LABELS)
    mixed = jnp.asarray([[0.3, 0.7, 0.0], [0.5, 0.0, 0.5], [0.1, 0.2, 0.7]])
    np.testing.assert_array_equal(losses.most_likely(mixed), [1, 0, 2])

"""Mixup and cutmix against a slow textbook in NumPy that takes the same draws."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rfn_jax import data
from rfn_jax.core import rng, sharding
from rfn_jax.data import mixing

B, H, W, K = 48, 9, 14, 5
IMAGES = np.random.default_rng(0).uniform(size=(B, H, W, 3)).astype(np.float32)
LABELS = (np.arange(B) * 7 % K).astype(np.int32)
KEYS = rng.example_keys(jax.random.key(1), np.arange(B))


def textbook(mixup, cutmix):
    images, labels, kinds = np.zeros_like(IMAGES), np.zeros((B, K)), []
    parts = jax.vmap(lambda key: jax.random.split(key, 4))(KEYS)
    shares = [
        np.asarray(jax.vmap(lambda key, a=alpha or 1.0: mixing.symmetric_beta(key, a))(parts[:, part]))
        for alpha, part in ((mixup, 1), (cutmix, 2))
    ]
    for i in range(B):
        x, other = IMAGES[i], IMAGES[i - 1]
        choice, _, _, box_key = parts[i]
        use_mixup = bool(mixup) and (not cutmix or bool(jax.random.bernoulli(choice)))
        kinds.append(use_mixup)
        if use_mixup:
            share = shares[0][i]
            images[i] = share * x + (1 - share) * other
        else:
            share = shares[1][i]
            row_key, column_key = jax.random.split(box_key)
            r = int(jax.random.randint(row_key, (), 0, H))
            c = int(jax.random.randint(column_key, (), 0, W))
            half_h, half_w = (int(np.float32(0.5) * np.sqrt(1 - share) * np.float32(n)) for n in (H, W))
            y1, y2, x1, x2 = max(r - half_h, 0), min(r + half_h, H), max(c - half_w, 0), min(c + half_w, W)
            images[i] = x
            images[i, y1:y2, x1:x2] = other[y1:y2, x1:x2]
            share = 1 - (y2 - y1) * (x2 - x1) / (H * W)
        labels[i, LABELS[i]] += share
        labels[i, LABELS[i - 1]] += 1 - share
    return images, labels, np.array(kinds)


@pytest.mark.parametrize(('mixup', 'cutmix', 'devices'), [(0.3, 0.0, 1), (0.0, 1.0, 8), (0.8, 0.5, 8)])
def test_equals_the_textbook_on_any_number_of_devices(mixup, cutmix, devices):
    mesh = sharding.data_mesh(jax.devices()[:devices])
    images, labels = jax.jit(data.Mixing(K, mixup, cutmix), in_shardings=sharding.batch_sharding(mesh))(
        IMAGES, LABELS, KEYS
    )
    expected_images, expected_labels, kinds = textbook(mixup, cutmix)
    np.testing.assert_allclose(images, expected_images, atol=1e-6)
    np.testing.assert_allclose(labels, expected_labels, atol=1e-6)
    assert labels.dtype == jnp.float32
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    assert kinds.any() == bool(mixup)
    assert kinds.all() == (not cutmix)
    assert (np.asarray(labels).max(axis=1) < 1).mean() > 0.5


@pytest.mark.parametrize('alpha', [0.2, 0.5, 1.0, 3.0, 50.0])
def test_draws_have_the_beta_distribution(alpha):
    keys = jax.random.split(jax.random.key(3), 5000)
    draws = np.asarray(jax.vmap(lambda key: mixing.symmetric_beta(key, alpha))(keys), np.float64)
    assert ((draws >= 0) & (draws <= 1)).all()
    assert scipy.stats.kstest(draws, scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert abs(draws.var() * 4 * (2 * alpha + 1) - 1) < 0.07


def test_a_device_gets_one_image_of_another_and_nothing_else():
    split = sharding.batch_sharding(sharding.data_mesh(jax.devices()))
    mix = jax.jit(data.Mixing(K, 0.2, 1.0), in_shardings=split, out_shardings=split)
    text = mix.lower(IMAGES, LABELS, KEYS).compile().as_text()
    sent = re.findall(r'= (\S+?)\{\S* (all-gather|all-reduce|all-to-all|collective-permute)(?:-start)?\(', text)
    assert sorted(sent) == [('f32[1,5]', 'collective-permute'), ('f32[1,9,14,3]', 'collective-permute')]


def test_without_an_alpha_labels_are_one_hot():
    images, labels = data.Mixing(K)(IMAGES, LABELS, KEYS)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, np.eye(K)[LABELS])

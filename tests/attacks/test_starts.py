import functools

import jax
import numpy as np
import pytest
import scipy.stats

from rfn_jax.attacks import Budget, at_original, uniform_in_ball

EPS = 0.1


def gray(count, shape=(2, 2, 1)):
    return np.full((count, *shape), 0.5, np.float32)


def test_at_original_keeps_the_images():
    images = gray(3)
    assert at_original(images, jax.random.split(jax.random.key(0), 3), Budget(EPS)) is images


def test_linf_start_is_uniform_in_every_value():
    images = gray(4000)
    change = np.asarray(uniform_in_ball(images, jax.random.split(jax.random.key(0), 4000), Budget(EPS))) - images
    assert np.max(np.abs(change)) <= EPS + 1e-7
    for value in change.reshape(4000, -1).T:
        assert scipy.stats.kstest(value / EPS, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_l2_start_is_uniform_in_the_ball():
    images = gray(4000)
    keys = jax.random.split(jax.random.key(0), 4000)
    change = np.asarray(uniform_in_ball(images, keys, Budget(EPS, 'l2'))) - images
    change = change.reshape(4000, -1)
    radius = np.linalg.norm(change, axis=1)
    assert radius.max() <= EPS + 1e-7
    # In a ball of d dimensions the share of points within r is (r / eps)^d, and all directions are alike.
    assert scipy.stats.kstest((radius / EPS) ** change.shape[1], scipy.stats.uniform.cdf).pvalue > 1e-3
    directions = change / radius[:, None]
    np.testing.assert_allclose(directions.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(directions.T @ directions / 4000, np.eye(4) / 4, atol=0.02)


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_starts_stay_in_the_box_and_follow_the_key_of_the_example_alone(norm):
    images = np.random.default_rng(0).integers(2, size=(6, 4, 4, 3)).astype(np.float32)  # every value is at an end
    keys = jax.random.split(jax.random.key(1), 6)
    start = jax.jit(functools.partial(uniform_in_ball, limits=Budget(EPS, norm)))
    whole = np.asarray(start(images, keys))
    assert whole.min() >= 0
    assert whole.max() <= 1
    for i in (0, 5):
        alone = start(images[i : i + 1], keys[i : i + 1])
        np.testing.assert_allclose(alone[0], whole[i], atol=1e-7)
    again = np.asarray(start(images, jax.random.split(jax.random.key(2), 6)))
    assert np.all(np.any(again != whole, axis=(1, 2, 3)))

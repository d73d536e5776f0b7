import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rfn_jax.attacks.inputs import mixing, scales, transforms

GENERATOR = np.random.default_rng(0)
COUNT = 3000
# All values of image i of the pool are i + 1, so that a copy shows what was mixed in.
POOL = transforms.Pool(
    np.broadcast_to(np.arange(1.0, 7.0, dtype=np.float32)[:, None, None, None], (6, 3, 4, 2)),
    np.array([0, 1, 1, 2, 2, 2], np.int32),
)


@functools.partial(jax.jit, static_argnums=0)
def apply(transform, inputs):
    return transform.apply(inputs)


def given(images, labels, copy, *, seed=0, pool=POOL):
    keys, base_keys = (jax.random.split(key, len(images)) for key in jax.random.split(jax.random.key(seed)))
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, copy)  # separate keys for each copy, as in the engine
    return transforms.Input(images, np.asarray(labels, np.int32), keys, base_keys, np.int32(copy), pool)


def partners(transform, labels, copy=0, *, portion, **options):
    """The number in the pool of the image that each example was mixed with."""
    result = np.asarray(apply(transform, given(np.zeros((len(labels), 3, 4, 2), np.float32), labels, copy, **options)))
    mixed = result[:, 0, 0, 0] / portion - 1
    np.testing.assert_allclose(result, np.broadcast_to(result[:, :1, :1, :1], result.shape))
    np.testing.assert_allclose(mixed, mixed.round(), atol=1e-4)
    return mixed.round().astype(int)


def test_the_partner_is_any_image_of_another_class_equally_often():
    labels = np.arange(COUNT) % 3
    drawn = partners(mixing.admix(portion=0.5), labels, portion=0.5)
    for label in range(3):
        others = np.flatnonzero(POOL.labels != label)
        seen = np.bincount(drawn[labels == label], minlength=6)
        assert seen[others].sum() == COUNT / 3
        assert scipy.stats.chisquare(seen[others]).pvalue > 1e-3


def test_the_partner_may_be_of_the_same_class_on_request_or_if_there_is_no_other():
    drawn = partners(mixing.admix(portion=0.5, other_classes=False), np.full(COUNT, 2), portion=0.5)
    assert scipy.stats.chisquare(np.bincount(drawn, minlength=6)).pvalue > 1e-3
    lonely = transforms.Pool(POOL.images[3:], POOL.labels[3:])
    drawn = partners(mixing.admix(portion=0.5), np.full(COUNT, 2), portion=0.5, pool=lonely) - 3
    assert scipy.stats.chisquare(np.bincount(drawn, minlength=3)).pvalue > 1e-3


def test_all_scales_of_a_mix_share_a_partner_and_each_mix_has_its_own():
    images = GENERATOR.uniform(size=(60, 3, 4, 2)).astype(np.float32)
    labels = np.arange(60) % 3
    transform = mixing.admix(mixes=3, scales=4, portion=0.2)
    assert transform.copies == 12
    assert transform.needs_pool
    drawn = []
    for mix in range(3):
        first = np.asarray(apply(transform, given(images, labels, 4 * mix)))
        drawn.append(((first - images)[:, 0, 0, 0] / 0.2 - 1).round().astype(int))
        for scale in range(4):
            expected = (images + 0.2 * POOL.images[drawn[-1]]) / 2**scale
            result = apply(transform, given(images, labels, 4 * mix + scale))
            np.testing.assert_allclose(result, expected, atol=1e-6)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert 0 < np.sum(drawn[i] == drawn[j]) < 40  # drawn with replacement, from three to five images
    assert np.any(drawn[0] != partners(mixing.admix(portion=0.2), labels, portion=0.2, seed=1))


@pytest.mark.parametrize('copies', [1, 5])
def test_scale_copies_are_halved_exactly_and_so_are_their_gradients(copies):
    images = GENERATOR.uniform(size=(4, 3, 4, 2)).astype(np.float32)
    for copy in range(copies):
        inputs = given(images, np.zeros(4), copy)
        result, pull = jax.vjp(lambda x, i=inputs: apply(scales.scale_copies(copies), i._replace(images=x)), images)
        np.testing.assert_array_equal(result, images / 2**copy)
        np.testing.assert_array_equal(pull(np.ones_like(images))[0], np.full_like(images, 0.5**copy))


@pytest.mark.slow
def test_without_a_portion_admix_is_scale_copies():
    images = GENERATOR.uniform(size=(4, 3, 4, 2)).astype(np.float32)
    for copy in (0, 2, 4):
        expected = apply(scales.scale_copies(3), given(images, np.zeros(4), copy % 3))
        np.testing.assert_array_equal(apply(mixing.admix(2, 3, 0.0), given(images, np.zeros(4), copy)), expected)


def test_no_gradient_goes_through_the_other_image():
    def total(images, pool_images):
        pool = transforms.Pool(pool_images, POOL.labels)
        return jnp.sum(apply(mixing.admix(2, 3, 0.2), given(images, np.zeros(4), 1, pool=pool)))

    by_image, by_pool = jax.grad(total, argnums=(0, 1))(jnp.ones((4, 3, 4, 2)), jnp.asarray(POOL.images))
    np.testing.assert_array_equal(by_image, 0.5)
    np.testing.assert_array_equal(by_pool, 0)

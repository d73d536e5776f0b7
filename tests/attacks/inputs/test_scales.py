import jax
import numpy as np
import pytest

from rfn_jax.attacks.inputs import scales, transforms

IMAGES = np.random.default_rng(0).uniform(size=(3, 4, 5, 2)).astype(np.float32)


def apply(transform, images, copy):
    keys = jax.random.split(jax.random.key(0), len(images))
    return transform.apply(transforms.Input(images, np.zeros(len(images), np.int32), keys, keys, copy, None))


@pytest.mark.parametrize('copies', [1, 5])
def test_copies_are_halved_exactly(copies):
    transform = scales.scale_copies(copies)
    assert transform.copies == copies
    assert not transform.needs_pool
    for i in range(copies):
        np.testing.assert_array_equal(apply(transform, IMAGES, np.int32(i)), IMAGES / 2**i)


def test_the_default_is_five_copies():
    assert scales.scale_copies().copies == 5


def test_the_gradient_has_the_factor_of_the_copy():
    transform = scales.scale_copies(4)
    for i in range(4):
        gradient = jax.grad(lambda x, i=i: apply(transform, x, np.int32(i)).sum())(IMAGES)
        np.testing.assert_array_equal(gradient, np.full_like(IMAGES, 0.5**i))
